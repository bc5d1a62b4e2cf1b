//! What a server puts up with, as its builder takes it.

use std::time::Duration;

use super::ServerBuilder;
use crate::config::{IpList, ProtectionConfig, SessionLimits};

impl<T, H> ServerBuilder<T, H> {
    /// What the server puts up with from one IP address, and from whom at all, in place of all such
    /// settings.
    pub fn protection(mut self, protection: ProtectionConfig) -> Self {
        self.config.protection = protection;
        self
    }

    /// Handshakes that may go on at a time, in all; 0 is no limit of their own. Default: 1000.
    pub fn max_handshakes(mut self, n: usize) -> Self {
        self.config.protection.max_handshakes = n;
        self
    }

    /// Connections of one IP address (of IPv6: of one /64 network) at most, loopback excepted; 0 is
    /// no limit. Default: 1000.
    pub fn max_connections_per_ip(mut self, n: usize) -> Self {
        self.config.protection.max_connections_per_ip = n;
        self
    }

    /// New connections per second of one IP address in the long run, and as many as `burst` at once,
    /// loopback excepted; 0 is no limit. Default: 100 and 1000.
    pub fn connection_rate_per_ip(mut self, per_second: u32, burst: u32) -> Self {
        self.config.protection.connections_per_second_per_ip = per_second;
        self.config.protection.connection_burst_per_ip = burst;
        self
    }

    /// Networks without limits per IP address. Default: loopback.
    pub fn exempt(mut self, networks: IpList) -> Self {
        self.config.protection.exempt = networks;
        self
    }

    /// Networks that may connect, where they are not [denied](Self::deny). Default: everybody.
    pub fn allow(mut self, networks: IpList) -> Self {
        self.config.protection.allow = networks;
        self
    }

    /// Networks that may not connect. Default: none.
    pub fn deny(mut self, networks: IpList) -> Self {
        self.config.protection.deny = networks;
        self
    }

    /// The proxies in front of this server. Only they may connect, and they must say in the PROXY
    /// protocol (version 1 or 2) who the client is, which then is the peer of the session. For one
    /// listener only: `tcp://0.0.0.0:8080?proxies=10.0.0.0/8`. Default: none.
    pub fn proxies(mut self, networks: IpList) -> Self {
        self.config.protection.proxies = networks;
        self
    }

    /// What each session puts up with from its peer, in place of all such settings.
    pub fn limits(mut self, limits: SessionLimits) -> Self {
        self.config.session.limits = limits;
        self
    }

    /// Closes sessions whose peer does not say anything for this long after it has connected; `None`
    /// waits. Default: `None`.
    pub fn first_byte_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.session.limits.first_byte_timeout = timeout.into();
        self
    }

    /// Closes sessions whose peer reads too little of what waits for it for this long; `None` waits.
    /// Default: 60 s.
    pub fn slow_reader_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.session.limits.slow_reader_timeout = timeout.into();
        self
    }

    /// Ends sessions in good order at this age; `None` never does. Default: `None`.
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.config.session.limits.max_age = age.into();
        self
    }
}
