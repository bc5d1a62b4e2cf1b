//! What a server and a session put up with: [`ProtectionConfig`] and [`SessionLimits`].

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{IpList, check, positive, text};
use crate::error::Result;

/// What a server puts up with from one IP address, and from whom at all. Checked when a connection
/// is accepted, before anything is spent on it.
///
/// Peers without an IP address (Unix sockets, `memory://`) are not concerned. IPv6 addresses count
/// by their first 64 bits, since one customer has at least so many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProtectionConfig {
    /// Handshakes (TLS, PROXY header, pipeline) that may go on at a time, on all listeners together; 0 is
    /// as many as [connections](super::ServerConfig::max_connections). When there are so many, the oldest
    /// is cut for a new one if it has taken a quarter of
    /// [its time](super::ServerConfig::handshake_timeout) already, and else the new one is refused.
    /// Default: 1000.
    pub max_handshakes: usize,
    /// Connections of one IP address at most, on all listeners together; 0 is no limit. Default:
    /// 1000.
    pub max_connections_per_ip: usize,
    /// New connections per second of one IP address, in the long run; 0 is no limit. Default: 100.
    pub connections_per_second_per_ip: u32,
    /// New connections that one IP address may make at once. Default: 1000, so that everybody
    /// behind one address can come back at the same time.
    pub connection_burst_per_ip: u32,
    /// Networks without limits per IP address. Default: loopback.
    pub exempt: IpList,
    /// Networks that may connect; empty is everybody. Default: empty.
    pub allow: IpList,
    /// Networks that may not connect, even where [`allow`](Self::allow) lets them. Default: empty.
    pub deny: IpList,
    /// The proxies in front of this server, which say in the PROXY protocol (version 1 or 2) who
    /// the client is. Where there are any, only they may connect, and each connection must begin
    /// with that header, before TLS; then the client that it names is the peer of the session,
    /// of limits, and of both lists. Default: empty, no proxy.
    pub proxies: IpList,
}

impl Default for ProtectionConfig {
    fn default() -> Self {
        Self {
            max_handshakes: 1000,
            max_connections_per_ip: 1000,
            connections_per_second_per_ip: 100,
            connection_burst_per_ip: 1000,
            exempt: IpList::loopback(),
            allow: IpList::default(),
            deny: IpList::default(),
            proxies: IpList::default(),
        }
    }
}

impl ProtectionConfig {
    /// Checks that the settings make sense; `path` is where they stand.
    pub(super) fn validate(&self, path: &str) -> Result<()> {
        let limited = self.connections_per_second_per_ip > 0;
        check(
            !limited || self.connection_burst_per_ip > 0,
            path,
            "connection_burst_per_ip",
            "must be at least 1 where there is a rate",
        )
    }
}

/// What one session puts up with from its peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionLimits {
    /// With the envelope: how long the peer may take for its greeting, which the protocol demands
    /// at once. Default: 10 s.
    #[serde(with = "text::optional_duration")]
    pub hello_timeout: Option<Duration>,
    /// Without the envelope: how long the peer may take for its first byte. Default: off, since a
    /// plain peer may wait for us to speak first, or only listen; the idle deadline holds.
    #[serde(with = "text::optional_duration")]
    pub first_byte_timeout: Option<Duration>,
    /// A peer for which more than [`outbox.low`](super::OutboxConfig::low) bytes or a sender without
    /// room wait, and which takes fewer than that many bytes in this time, is closed as a slow
    /// reader; bytes are counted as they were before a pipeline has compressed them. Default: 60 s
    /// for servers, off for clients.
    ///
    /// The system tells of progress in steps of up to a third of its send buffer, which can be a
    /// megabyte; where slow peers are welcome, set a small
    /// [`send_buffer`](super::SocketOptions::send_buffer) or [`unsent`](super::SocketOptions::unsent)
    /// or a longer time.
    #[serde(with = "text::optional_duration")]
    pub slow_reader_timeout: Option<Duration>,
    /// A session of this age ends in good order: where there is an envelope, the peer is told first, and
    /// has up to a second to stop asking. Default: off.
    #[serde(with = "text::optional_duration")]
    pub max_age: Option<Duration>,
    /// How much of `max_age` is left out at random, so that sessions that began together do not
    /// end together: 0 is nothing, 1 is up to all of it. Default: 0.1.
    pub max_age_jitter: f64,
    /// Messages per second that the peer may send, in the long run; 0 is no limit. Default: 0.
    ///
    /// Looked at once for each read: what one read has brought (256 KiB at most) is handled first.
    pub messages_per_second: u64,
    /// Bytes per second that the peer may send, framing included, in the long run; 0 is no limit.
    /// Default: 0. Looked at as for messages.
    pub bytes_per_second: u64,
    /// For how long a peer that was silent may send as fast as it can: the limits hold on average
    /// over this time. Default: 1 s.
    #[serde(with = "text::duration")]
    pub rate_burst: Duration,
    /// What happens to a peer that sends more than that. Default: it waits.
    pub rate_exceeded: RateExceeded,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            hello_timeout: Some(Duration::from_secs(10)),
            first_byte_timeout: None,
            slow_reader_timeout: Some(Duration::from_secs(60)),
            max_age: None,
            max_age_jitter: 0.1,
            messages_per_second: 0,
            bytes_per_second: 0,
            rate_burst: Duration::from_secs(1),
            rate_exceeded: RateExceeded::Wait,
        }
    }
}

impl SessionLimits {
    /// Those of a client: its server may read as slowly as it likes.
    pub(super) fn of_client() -> Self {
        Self {
            slow_reader_timeout: None,
            ..Self::default()
        }
    }

    /// How long the peer may take for its first byte.
    pub(crate) fn first(&self, envelope: bool) -> Option<Duration> {
        match envelope {
            true => self.hello_timeout,
            false => self.first_byte_timeout,
        }
    }

    /// When a session that begins now is as old as it may get: chance leaves something out.
    pub(crate) fn expiry(&self, now: Instant) -> Option<Instant> {
        let left_out = self.max_age_jitter.clamp(0.0, 1.0) * fastrand::f64();
        let age = self.max_age?.as_secs_f64() * (1.0 - left_out);
        now.checked_add(Duration::try_from_secs_f64(age).ok()?)
    }

    /// Checks that the settings make sense; `path` is where they stand.
    pub(super) fn validate(&self, path: &str) -> Result<()> {
        for (value, key) in [
            (self.hello_timeout, "limits.hello_timeout"),
            (self.first_byte_timeout, "limits.first_byte_timeout"),
            (self.slow_reader_timeout, "limits.slow_reader_timeout"),
            (self.max_age, "limits.max_age"),
        ] {
            check(
                positive(value),
                path,
                key,
                "must be larger than 0, or \"off\"",
            )?;
        }
        check(
            (0.0..=1.0).contains(&self.max_age_jitter),
            path,
            "limits.max_age_jitter",
            "must be from 0 to 1",
        )?;
        check(
            !self.rate_burst.is_zero(),
            path,
            "limits.rate_burst",
            "must be larger than 0",
        )
    }
}

/// What happens to a peer that sends more than it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateExceeded {
    /// Nothing is read from it until it is within the limit again.
    #[default]
    Wait,
    /// The session is closed.
    Close,
}
