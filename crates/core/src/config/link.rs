//! What one link is opened with: [`LinkConfig`].

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{
    ClientConfig, Deflate, HttpConfig, Pipeline, ProtectionConfig, ServerConfig, SessionConfig,
    SocketOptions, TlsClientConfig, TlsServerConfig, WebSocketConfig,
};
use crate::error::Result;
use crate::link::Sockets;

/// What a transport needs to open a link.
#[derive(Clone, Debug, Default)]
pub struct LinkConfig {
    /// Settings of the session on it.
    pub session: SessionConfig,
    /// Options of the socket under it.
    pub socket: SocketOptions,
    /// Whether the address asks for TLS, by `?tls=true`; with the scheme `tls` it is used anyway.
    pub tls: bool,
    /// TLS where links are accepted.
    pub tls_server: Arc<TlsServerConfig>,
    /// TLS where links are made.
    pub tls_client: Arc<TlsClientConfig>,
    /// Whether the address asks for WebSocket, by `?websocket=true`; with the schemes `ws` and `wss` it
    /// is used anyway.
    pub over_websocket: bool,
    /// WebSocket, whichever side.
    pub websocket: Arc<WebSocketConfig>,
    /// Who may connect, and through which proxies, where links are accepted.
    pub protection: ProtectionConfig,
    /// HTTP where links are accepted.
    pub http: Arc<HttpConfig>,
    /// Listening sockets from and for other processes.
    pub sockets: Sockets,
    /// How long it may take until a link is open, which whoever opens it sees to. Default: nobody does.
    pub open_timeout: Option<Duration>,
}

impl From<&ServerConfig> for LinkConfig {
    fn from(config: &ServerConfig) -> Self {
        Self {
            session: config.session.clone(),
            socket: config.socket.clone(),
            tls_server: Arc::new(config.tls.clone()),
            websocket: Arc::new(config.websocket.clone()),
            protection: config.protection.clone(),
            http: Arc::new(config.http.clone()),
            open_timeout: Some(config.handshake_timeout),
            ..Self::default()
        }
    }
}

impl From<&ClientConfig> for LinkConfig {
    fn from(config: &ClientConfig) -> Self {
        Self {
            session: config.session.clone(),
            socket: config.socket.clone(),
            tls_client: Arc::new(config.tls.clone()),
            open_timeout: Some(config.connect_timeout),
            websocket: Arc::new(config.websocket.clone()),
            ..Self::default()
        }
    }
}

/// The part of a deadline that is left to say why a link cannot be opened, and the most of it.
const MARGIN: u32 = 16;
const MARGIN_MAX: Duration = Duration::from_millis(20);

/// By when a link that begins to open now must have said why it cannot be, if it knows: a little before
/// the [deadline](LinkConfig::open_timeout), which would hide it.
#[must_use]
pub fn open_until(timeout: Option<Duration>) -> Option<Instant> {
    let timeout = timeout?;
    Instant::now().checked_add(timeout - (timeout / MARGIN).min(MARGIN_MAX))
}

/// What the query of an address can set.
const KEYS: [&str; 11] = [
    "framing",
    "envelope",
    "max_message",
    "tls",
    "pipeline",
    "compress",
    "websocket",
    "deflate",
    // only what listens knows the rest
    "allow",
    "deny",
    "proxies",
];
/// How many of them a client knows.
const OF_CLIENTS: usize = 8;

impl LinkConfig {
    /// The schemes that are WebSocket.
    const WEBSOCKET: [&str; 2] = ["ws", "wss"];

    /// Whether links of this address are WebSocket.
    #[must_use]
    pub fn is_websocket(&self, address: &crate::Address) -> bool {
        self.over_websocket || Self::WEBSOCKET.contains(&address.scheme())
    }

    /// Whether links of this address have TLS.
    #[must_use]
    pub fn is_secure(&self, address: &crate::Address) -> bool {
        self.tls || matches!(address.scheme(), "tls" | "wss" | "https" | "grpcs")
    }

    /// The parameters of an address that are no settings: with WebSocket they are a part of what the
    /// client asks for, as in `ws://host:80/chat?room=7`. Empty when there are none.
    #[must_use]
    pub fn foreign_query(address: &crate::Address) -> String {
        address.query_without(&KEYS)
    }

    /// Applies the query of an address: `framing`, `envelope`, `max_message`, `tls`, `pipeline`,
    /// `compress`, `websocket` and `deflate`; for listeners also `allow`, `deny` and `proxies`, each as
    /// networks with commas between them.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument), pointing at the part that is
    /// wrong.
    pub fn for_address(&self, address: &crate::Address) -> Result<Self> {
        address.check_query(&KEYS)?;
        self.apply(address)
    }

    fn apply(&self, address: &crate::Address) -> Result<Self> {
        let mut config = self.clone();
        if let Some(framing) = address.parse_query("framing")? {
            config.session.framing = framing;
        }
        if let Some(envelope) = address.parse_query("envelope")? {
            config.session.envelope = envelope;
        }
        if let Some(max_message) = address.parse_query("max_message")? {
            config.session.max_message = max_message;
        }
        if let Some(websocket) = address.parse_query("websocket")? {
            config.over_websocket = websocket;
        }
        if !config.is_websocket(address)
            && let Some(no) = address.parse_query::<Never>("deflate")?
        {
            match no {}
        }
        if let Some(deflate) = address.parse_query("deflate")? {
            let websocket = Arc::make_mut(&mut config.websocket);
            websocket.deflate = match deflate {
                true => websocket
                    .deflate
                    .take()
                    .or_else(|| Some(Deflate::default())),
                false => None,
            };
        }
        if matches!(address.scheme(), "tls" | "wss" | "https" | "grpcs") {
            let _: Option<Always> = address.parse_query("tls")?;
        } else if let Some(tls) = address.parse_query("tls")? {
            config.tls = tls;
        }
        let protection = &mut config.protection;
        for (key, list) in [
            ("allow", &mut protection.allow),
            ("deny", &mut protection.deny),
            ("proxies", &mut protection.proxies),
        ] {
            if let Some(networks) = address.parse_query(key)? {
                *list = networks;
            }
        }
        match address.parse_query("pipeline")? {
            Some(true) => {
                config.session.pipeline = config.session.pipeline.or(Some(Pipeline::new()))
            }
            Some(false) => config.session.pipeline = None,
            None => {}
        }
        if let Some(compress) = address.parse_query("compress")? {
            config.session.pipeline.get_or_insert_default().compress = compress;
        }
        config.session.validate("")?;
        Ok(config)
    }

    /// As [`for_address`](Self::for_address), for an address to connect to: what only a listener can
    /// do is an error and not ignored.
    ///
    /// # Errors
    /// As there.
    pub fn for_connect(&self, address: &crate::Address) -> Result<Self> {
        let websocket = self.is_websocket(address) || address.query("websocket") == Some("true");
        let (known, of_listeners) = KEYS.split_at(OF_CLIENTS);
        if websocket {
            // the rest is for the server
            address.check_query_without(of_listeners)?;
        } else {
            address.check_query(known)?;
        }
        self.apply(address)
    }
}

/// What `deflate` can be without WebSocket.
enum Never {}

impl std::str::FromStr for Never {
    type Err = &'static str;

    fn from_str(_: &str) -> std::result::Result<Self, &'static str> {
        Err("deflate is for WebSocket; elsewhere there is compress=deflate")
    }
}

/// `true`, which is all that `tls` can be where the scheme says so already.
struct Always;

impl std::str::FromStr for Always {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, &'static str> {
        match text {
            "true" => Ok(Self),
            _ => Err("this scheme always has TLS; tcp://, ws:// and http:// are without"),
        }
    }
}
