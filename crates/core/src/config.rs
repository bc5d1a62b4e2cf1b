//! Every setting with its default: plain structs that code, `netsys.toml` and tests share.

mod http;
mod ip_list;
mod link;
mod pem;
mod pipeline;
mod protection;
mod text;
mod tls;
mod websocket;
mod worker;

use std::time::Duration;

use network_system_wire::Framing;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

pub use http::HttpConfig;
pub use ip_list::{IpList, IpListError};
pub use link::{LinkConfig, open_until};
pub use pem::Pem;
pub use pipeline::{
    Compression, Noise, NoiseKey, ParseCompressionError, ParsePublicKeyError, Pipeline, PublicKey,
};
pub use protection::{ProtectionConfig, RateExceeded, SessionLimits};
pub use tls::{CertificateFiles, ClientAuth, TlsClientConfig, TlsServerConfig, TlsVersion};
pub use websocket::{Deflate, ENVELOPE_SUBPROTOCOL, WebSocketConfig};
pub use worker::WorkerConfig;

const MIB: usize = 1024 * 1024;

/// Settings of one session, the same for servers and clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionConfig {
    /// How messages are delimited on byte-stream transports. Default: `u32` big-endian length.
    #[serde(with = "text::framing")]
    pub framing: Framing,
    /// Whether each message carries the envelope header that makes requests, heartbeats and drain
    /// announcements possible. Both sides must agree. Default: no, so that plain peers work.
    pub envelope: bool,
    /// Largest message in bytes, received or sent. Default: 16 MiB.
    pub max_message: usize,
    /// The queue of messages that wait to be written.
    pub outbox: OutboxConfig,
    /// A session without traffic for this long is closed. Default: 5 minutes for servers, off for
    /// clients.
    #[serde(with = "text::optional_duration")]
    pub idle_timeout: Option<Duration>,
    /// How a dead peer is noticed.
    pub heartbeat: Heartbeat,
    /// How long a closing session may take to write what is queued. Default: 5 s.
    #[serde(with = "text::duration")]
    pub close_timeout: Duration,
    /// How long a request may take when the call gives no deadline. Default: 30 s.
    #[serde(with = "text::duration")]
    pub request_timeout: Duration,
    /// What the session puts up with from its peer.
    pub limits: SessionLimits,
    /// Compression and encryption of messages. Both sides must have one. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<Pipeline>,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            framing: Framing::default(),
            envelope: false,
            max_message: 16 * MIB,
            outbox: OutboxConfig::default(),
            idle_timeout: Some(Duration::from_secs(300)),
            heartbeat: Heartbeat::default(),
            close_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            limits: SessionLimits::default(),
            pipeline: None,
        }
    }
}

impl SessionConfig {
    /// The framing with [`max_message`](Self::max_message) applied.
    #[must_use]
    pub fn limited_framing(&self) -> Framing {
        self.framing.clone().with_max_message(self.max_message)
    }

    /// Checks that the settings make sense; `path` is where they stand, such as `session.`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] names the key.
    pub fn validate(&self, path: &str) -> Result<()> {
        let OutboxConfig { high, low, .. } = self.outbox;
        check(
            low <= high,
            path,
            "outbox.low",
            "must not be larger than outbox.high",
        )?;
        check(high > 0, path, "outbox.high", "must be larger than 0")?;
        check(
            !self.request_timeout.is_zero(),
            path,
            "request_timeout",
            "must be larger than 0",
        )?;
        check(
            self.max_message > 0,
            path,
            "max_message",
            "must be larger than 0",
        )?;
        check(
            positive(self.idle_timeout),
            path,
            "idle_timeout",
            "must be larger than 0, or \"off\"",
        )?;
        let beat = &self.heartbeat;
        check(
            positive(beat.interval),
            path,
            "heartbeat.interval",
            "must be larger than 0, or \"off\"",
        )?;
        check(
            beat.missed > 0,
            path,
            "heartbeat.missed",
            "must be at least 1",
        )?;
        self.limits.validate(path)?;
        if let Some(pipeline) = &self.pipeline {
            pipeline.validate(&format!("{path}pipeline."), &self.framing)?;
        }
        let prefixed = matches!(self.framing, Framing::LengthPrefix(_) | Framing::Custom(_));
        check(
            !self.envelope || prefixed,
            path,
            "envelope",
            "needs a length-prefixed framing",
        )
    }
}

/// The queue of messages that wait to be written, counted in bytes with their headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutboxConfig {
    /// Full at this many bytes. Default: 1 MiB.
    pub high: usize,
    /// Senders that wait go on when it has drained to this many bytes. Default: 256 KiB.
    pub low: usize,
    /// What happens to a message that finds it full. Default: the sender waits.
    pub overflow: OverflowPolicy,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            high: MIB,
            low: MIB / 4,
            overflow: OverflowPolicy::Wait,
        }
    }
}

/// What happens to a message that finds the outbox full. Drops are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverflowPolicy {
    /// `send` waits for room; `try_send` fails with [`ErrorKind::QueueFull`].
    #[default]
    Wait,
    /// `send` fails with [`ErrorKind::QueueFull`].
    Reject,
    /// The message is dropped and `send` succeeds.
    DropNewest,
    /// The messages that have waited longest are dropped to make room.
    DropOldest,
    /// The session is closed: its peer is too slow to be served.
    Close,
}

/// How a dead peer is noticed: by pings where the envelope (or the transport) has them, by TCP
/// keepalive probes with the same timing elsewhere. Probes are timed in whole seconds, from 1 to
/// 32 767 (rounded up), and there are 127 at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// Silence after which the peer is probed, and the time between probes. Default: 30 s.
    #[serde(with = "text::optional_duration")]
    pub interval: Option<Duration>,
    /// Unanswered probes after which the peer is dead. Default: 2.
    pub missed: u32,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_secs(30)),
            missed: 2,
        }
    }
}

/// Options of sockets; the ones that a transport does not have are ignored there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SocketOptions {
    /// Send small segments at once (`TCP_NODELAY`). Default: yes.
    pub nodelay: bool,
    /// TCP keepalive probes, timed by [`Heartbeat`]. Default: yes.
    pub keepalive: bool,
    /// Receive buffer in bytes (`SO_RCVBUF`). Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive_buffer: Option<usize>,
    /// Send buffer in bytes (`SO_SNDBUF`). Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_buffer: Option<usize>,
    /// Bytes that the system takes before they can be sent (`TCP_NOTSENT_LOWAT`, Linux only); 0 is
    /// as many as the send buffer holds. Default: 0.
    ///
    /// With 65536, say, what waits in the session's own queue can still be dropped, and a stream
    /// stays in the processor's cache (measured on loopback: a fifth more messages a second). What
    /// is on its way to the peer does not count, so a long line is filled all the same. But two ends
    /// whose handlers both wait for room hold less between them before they wait for each other.
    pub unsent: u32,
    /// Connections that may wait to be accepted. Default: 4096; the system may have a lower limit.
    pub backlog: u32,
    /// A listener on an unspecified IPv6 address (or none) takes IPv4 too. Default: yes.
    pub dual_stack: bool,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: true,
            receive_buffer: None,
            send_buffer: None,
            unsent: 0,
            backlog: 4096,
            dual_stack: true,
        }
    }
}

/// Settings of a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerConfig {
    /// Addresses to listen on.
    pub listen: Vec<String>,
    /// Threads of the server's own, each with its own listeners; 0 runs it in the caller's
    /// runtime. Default: 0.
    pub workers: usize,
    /// How these threads run.
    pub worker: WorkerConfig,
    /// Connections at most; more are closed at once and counted. Default: 10 000.
    pub max_connections: usize,
    /// How long a new connection may take until messages can move, where its transport has a
    /// handshake; then it is refused. Default: 10 s.
    #[serde(with = "text::duration")]
    pub handshake_timeout: Duration,
    /// How long [`run`](crate::ServerBuilder::run) lets sessions finish. Default: 10 s.
    #[serde(with = "text::duration")]
    pub shutdown_timeout: Duration,
    /// The time over which a shutdown spreads the ends of its sessions, so that clients do not all
    /// come back at the same moment: a millisecond for each, this at most, and at most half of the
    /// shutdown's deadline. Up to 32 are told at once. Default: 2 s.
    #[serde(with = "text::duration")]
    pub drain_window: Duration,
    /// Settings of each session.
    pub session: SessionConfig,
    /// Options of each socket.
    pub socket: SocketOptions,
    /// TLS of the listeners that use it.
    pub tls: TlsServerConfig,
    /// WebSocket of the listeners that use it.
    pub websocket: WebSocketConfig,
    /// What the server puts up with from one IP address, and from whom at all.
    pub protection: ProtectionConfig,
    /// HTTP of the listeners that have it.
    pub http: HttpConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            workers: 0,
            worker: WorkerConfig::default(),
            max_connections: 10_000,
            handshake_timeout: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(10),
            drain_window: Duration::from_secs(2),
            session: SessionConfig::default(),
            socket: SocketOptions::default(),
            tls: TlsServerConfig::default(),
            websocket: WebSocketConfig::default(),
            protection: ProtectionConfig::default(),
            http: HttpConfig::default(),
        }
    }
}

impl ServerConfig {
    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] names the key.
    pub fn validate(&self) -> Result<()> {
        check(
            self.max_connections > 0,
            "",
            "max_connections",
            "must be at least 1",
        )?;
        check(self.workers <= 1024, "", "workers", "must be at most 1024")?;
        self.worker.validate(self.workers, "worker.")?;
        check(
            !self.handshake_timeout.is_zero(),
            "",
            "handshake_timeout",
            "must be larger than 0",
        )?;
        self.tls.validate("tls.")?;
        self.websocket.validate("websocket.")?;
        check(
            self.websocket.headers.is_empty(),
            "websocket.",
            "headers",
            "are for clients",
        )?;
        self.protection.validate("protection.")?;
        self.http.validate("http.")?;
        check(
            self.socket.backlog > 0,
            "socket.",
            "backlog",
            "must be at least 1",
        )?;
        self.session.validate("session.")
    }
}

/// Settings of a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientConfig {
    /// Addresses to try in turn.
    pub addresses: Vec<String>,
    /// How long one connect may take, name look-up included. Default: 10 s.
    #[serde(with = "text::duration")]
    pub connect_timeout: Duration,
    /// How to connect again after a loss.
    pub reconnect: Backoff,
    /// Bytes of messages that are kept while there is no connection; more are rejected. 0 keeps
    /// none. Default: 1 MiB.
    pub offline_queue: usize,
    /// Settings of the session; the idle deadline is off by default.
    pub session: SessionConfig,
    /// Options of the socket.
    pub socket: SocketOptions,
    /// TLS of the addresses that use it.
    pub tls: TlsClientConfig,
    /// WebSocket of the addresses that use it.
    pub websocket: WebSocketConfig,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            reconnect: Backoff::default(),
            offline_queue: MIB,
            session: SessionConfig {
                idle_timeout: None,
                limits: SessionLimits::of_client(),
                ..SessionConfig::default()
            },
            socket: SocketOptions::default(),
            tls: TlsClientConfig::default(),
            websocket: WebSocketConfig::default(),
        }
    }
}

impl ClientConfig {
    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] names the key.
    pub fn validate(&self) -> Result<()> {
        let backoff = &self.reconnect;
        let timeouts = [
            (self.connect_timeout, "connect_timeout"),
            (backoff.initial, "reconnect.initial"),
        ];
        for (value, key) in timeouts {
            check(!value.is_zero(), "", key, "must be larger than 0")?;
        }
        let max_ok = backoff.max >= backoff.initial;
        check(
            max_ok,
            "",
            "reconnect.max",
            "must not be smaller than reconnect.initial",
        )?;
        let factor_ok = backoff.factor >= 1.0 && backoff.factor.is_finite();
        check(factor_ok, "", "reconnect.factor", "must be at least 1")?;
        self.tls.validate("tls.")?;
        self.websocket.validate("websocket.")?;
        self.session.validate("session.")
    }
}

/// How long to wait before connecting again: a random time between 0 and a bound that grows with
/// each failure ("full jitter"), so that many clients do not come back at the same moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Backoff {
    /// Whether to connect again at all. Default: yes.
    pub enabled: bool,
    /// The first bound. Default: 0.5 s.
    #[serde(with = "text::duration")]
    pub initial: Duration,
    /// The largest bound. Default: 30 s.
    #[serde(with = "text::duration")]
    pub max: Duration,
    /// What the bound is multiplied with after each failure. Default: 2.
    pub factor: f64,
    /// Whether the wait is random below the bound. Default: yes.
    pub jitter: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            enabled: true,
            initial: Duration::from_millis(500),
            max: Duration::from_secs(30),
            factor: 2.0,
            jitter: true,
        }
    }
}

impl Backoff {
    /// No second try.
    #[must_use]
    pub fn never() -> Self {
        Self {
            enabled: false,
            ..Self::default()
        }
    }

    /// A fixed time between tries.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self {
            initial: interval,
            max: interval,
            factor: 1.0,
            jitter: false,
            ..Self::default()
        }
    }

    /// The bound after `failures` failures in a row (0 for the first wait).
    #[must_use]
    pub fn bound(&self, failures: u32) -> Duration {
        let seconds = self.initial.as_secs_f64() * self.factor.powi(failures.min(1000) as i32);
        if seconds < self.max.as_secs_f64() {
            Duration::from_secs_f64(seconds)
        } else {
            self.max
        }
    }

    /// The wait after `failures` failures in a row: random below the bound, unless jitter is off.
    #[must_use]
    pub fn delay(&self, failures: u32) -> Duration {
        let bound = self.bound(failures);
        if self.jitter {
            bound.mul_f64(fastrand::f64())
        } else {
            bound
        }
    }
}

fn positive(duration: Option<Duration>) -> bool {
    duration.is_none_or(|duration| !duration.is_zero())
}

fn check(holds: bool, path: &str, key: &str, problem: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(
        Error::new(ErrorKind::InvalidArgument, "use the configuration")
            .because(format_args!("{path}{key} {problem}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        ServerConfig::default().validate().unwrap();
        ClientConfig::default().validate().unwrap();
    }

    #[test]
    fn validation_names_the_key() {
        let mut config = ServerConfig::default();
        config.session.outbox.low = config.session.outbox.high + 1;
        let error = config.validate().unwrap_err();
        assert!(error.to_string().contains("session.outbox.low"), "{error}");
        for (workers, micros, what) in [
            (0, 50, "need at least one worker"),
            (1, 10_001, "at most 10ms"),
        ] {
            let busy_poll = Some(Duration::from_micros(micros));
            let config = ServerConfig {
                workers,
                worker: WorkerConfig {
                    busy_poll,
                    ..WorkerConfig::default()
                },
                ..ServerConfig::default()
            };
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains("worker.busy_poll") && error.contains(what));
        }
        let mut config = ClientConfig::default();
        config.reconnect.factor = 0.5;
        assert!(
            config
                .validate()
                .unwrap_err()
                .to_string()
                .contains("reconnect.factor")
        );
    }

    #[test]
    fn the_backoff_doubles_up_to_its_cap_and_is_jittered() {
        let backoff = Backoff::default();
        let bounds: Vec<f64> = (0..8).map(|n| backoff.bound(n).as_secs_f64()).collect();
        assert_eq!(bounds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(backoff.bound(u32::MAX), backoff.max);
        let waits: Vec<Duration> = (0..50).map(|_| backoff.delay(3)).collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(4)));
        assert!(waits.iter().any(|wait| *wait != waits[0]));
        let fixed = Backoff::every(Duration::from_secs(5));
        assert_eq!(fixed.delay(9), Duration::from_secs(5));
    }

    #[test]
    fn an_address_overrides_settings() {
        let address = "tcp://h:1?framing=lines&max_message=100".parse().unwrap();
        let config = LinkConfig::default().for_address(&address).unwrap();
        assert_eq!(config.session.framing.to_string(), "lines");
        assert_eq!(config.session.max_message, 100);
        let lists = "tcp://h:1?allow=10.0.0.0/8&deny=&proxies=192.0.2.1,::1"
            .parse()
            .unwrap();
        let config = LinkConfig::default().for_address(&lists).unwrap();
        assert_eq!(config.protection.allow.to_string(), "10.0.0.0/8");
        assert!(config.protection.deny.is_empty());
        assert_eq!(config.protection.proxies.to_string(), "192.0.2.1,::1");
        // a client can do nothing with them
        assert!(LinkConfig::default().for_connect(&lists).is_err());
        for bad in [
            "tcp://h:1?framing=zip",
            "tcp://h:1?x=1",
            "tcp://h:1?framing=raw&envelope=true",
        ] {
            let error = LinkConfig::default()
                .for_address(&bad.parse().unwrap())
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
    }
}
