//! TLS over any stream transport: `tls://host:port`, and `?tls=true` elsewhere. [`Tls`] makes and
//! keeps what rustls needs, and links of it.
//!
//! | File | What it does |
//! |---|---|
//! | `stream.rs` | one connection: rustls over a socket, and how bytes move between them |
//! | `link.rs` | the link, its handshake, and listeners for it |
//! | `plain.rs` | the streams that it can lie over |
//! | `server.rs`, `client.rs` | settings to what rustls needs; which certificate a client gets |
//! | `material.rs` | PEM to certificates, keys and authorities, with errors that name the file |
//! | `reload.rs` | what was read from files, and is read again when they change |
//! | `identity.rs`, `failure.rs` | who the peer is, and what went wrong, in terms of this library |

mod client;
mod failure;
mod identity;
mod link;
mod material;
mod plain;
mod reload;
mod server;
mod stream;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use network_system_core::config::{LinkConfig, TlsClientConfig, open_until};
use network_system_core::{Address, Bound, Result};

use client::Client;
#[cfg(feature = "websocket")]
pub(crate) use link::Secured;
pub use link::{TlsBound, TlsLink, TlsListener};
pub use plain::Plain;
use reload::Reloading;
use rustls::pki_types::ServerName;
use server::Server;
use tokio::time::Instant;

/// Clients' settings that are kept for the next connect, with the sessions that can be resumed.
const KEPT: usize = 64;

/// What TLS has read from files: of the addresses that were bound, and of the settings that were
/// connected with last. Every clone means the same.
#[derive(Clone, Default)]
pub struct Tls(Arc<Inner>);

#[derive(Default)]
struct Inner {
    servers: Mutex<Vec<Weak<Reloading<Server>>>>,
    clients: Mutex<Vec<Known>>,
}

/// Clients' settings, and what was made of them.
struct Known {
    config: TlsClientConfig,
    client: Arc<Reloading<Client>>,
    /// Those who have connected with them, for as long as they may do so again.
    users: Vec<Weak<TlsClientConfig>>,
}

impl Known {
    fn add_user(&mut self, config: &Arc<TlsClientConfig>) {
        self.users.retain(|user| user.strong_count() > 0);
        let known = self
            .users
            .iter()
            .any(|user| user.as_ptr() == Arc::as_ptr(config));
        if !known {
            self.users.push(Arc::downgrade(config));
        }
    }

    fn is_used(&self) -> bool {
        self.users.iter().any(|user| user.strong_count() > 0)
    }
}

impl Tls {
    /// Whether this build has TLS.
    pub const IS_THERE: bool = true;

    /// Reads what a listener on `address` needs. Before the address is taken, so that settings that
    /// cannot work take nothing.
    pub(crate) fn accept(&self, address: &Address, config: &LinkConfig) -> Result<Accepting> {
        let server = Arc::new(server::load(address, &config.tls_server)?);
        let mut servers = lock(&self.0.servers);
        servers.retain(|server| server.strong_count() > 0);
        servers.push(Arc::downgrade(&server));
        Ok(Accepting {
            server,
            open_timeout: config.open_timeout,
        })
    }

    /// What a connect to `address` needs. Before there is a stream, for the same reason.
    pub(crate) fn connect(&self, address: &Address, config: &LinkConfig) -> Result<Connecting> {
        Ok(Connecting {
            until: open_until(config.open_timeout),
            name: client::server_name(address, &config.tls_client)?,
            client: self.client(&config.tls_client)?.current(),
        })
    }

    /// What an HTTP client with these settings needs; the same as before unless files have changed.
    #[cfg(feature = "http")]
    pub(crate) fn for_http(
        &self,
        config: &Arc<TlsClientConfig>,
    ) -> Result<Arc<rustls::ClientConfig>> {
        Ok(self.client(config)?.current().config())
    }

    /// What a client with these settings needs.
    fn client(&self, config: &Arc<TlsClientConfig>) -> Result<Arc<Reloading<Client>>> {
        let mut clients = lock(&self.0.clients);
        if let Some(known) = clients.iter_mut().find(|known| known.config == **config) {
            known.add_user(config);
            return Ok(known.client.clone());
        }
        let client = Arc::new(client::load(config)?);
        if clients.len() >= KEPT {
            clients.remove(0);
        }
        clients.push(Known {
            config: TlsClientConfig::clone(config),
            client: client.clone(),
            users: vec![Arc::downgrade(config)],
        });
        Ok(client)
    }

    /// Reads everything again; what cannot be used stays as it was. That the settings of clients that
    /// are gone cannot be used is no error: their files may be gone, too.
    pub(crate) fn reload(&self) -> Result<()> {
        let servers = lock(&self.0.servers).clone();
        let servers = servers.iter().filter_map(Weak::upgrade);
        let mut result = Ok(());
        for server in servers {
            result = result.and(server.reload());
        }
        let clients: Vec<_> = lock(&self.0.clients)
            .iter()
            .map(|known| (known.client.clone(), known.is_used()))
            .collect();
        for (client, is_used) in clients {
            let read = client.reload();
            if is_used {
                result = result.and(read);
            }
        }
        result
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// What the listeners of one address share.
pub(crate) struct Accepting {
    server: Arc<Reloading<Server>>,
    open_timeout: Option<Duration>,
}

impl Accepting {
    /// TLS on each of these.
    pub(crate) fn over<B: Bound>(self, bound: Vec<B>) -> impl Iterator<Item = TlsBound<B>> {
        let secured = move |plain| TlsBound::new(plain, self.server.clone(), self.open_timeout);
        bound.into_iter().map(secured)
    }

    /// A link that was accepted, before its handshake.
    pub(crate) fn link(&self, plain: Plain) -> Result<TlsLink> {
        TlsLink::accepted(plain, &self.server.current(), open_until(self.open_timeout))
    }
}

/// What one connect needs.
pub(crate) struct Connecting {
    client: Arc<Client>,
    name: ServerName<'static>,
    /// By when it must be known what is wrong.
    until: Option<Instant>,
}

impl Connecting {
    /// Does the client's handshake over a stream to `address`.
    pub(crate) async fn over(self, plain: Plain, address: &Address) -> Result<TlsLink> {
        TlsLink::connect(plain, self, address).await
    }
}

/// What went wrong in a handshake that an HTTP client has done.
#[cfg(feature = "http")]
pub(crate) fn of_client(error: rustls::Error) -> network_system_core::Error {
    failure::of_handshake(std::io::Error::other(error), failure::Role::Client)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
