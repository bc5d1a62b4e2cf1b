//! Who is let in, and how much of one peer is put up with. What is spent on a connection before it is
//! let in stands here, so it is little: look-ups in lists, and one in a table of addresses.
//!
//! | File | What it does |
//! |---|---|
//! | `addresses.rs` | connections and new ones per second of each IP address |
//! | `half_open.rs` | handshakes that go on at a time |
//! | `refusals.rs` | why connections are refused, counted, and logged now and then |
//! | `proxy.rs` | the client that a proxy in front speaks for |
//! | `pace.rs` | messages and bytes per second of one session |

mod addresses;
mod half_open;
mod pace;
mod proxy;
mod refusals;

use std::sync::Arc;

pub(crate) use addresses::{Addresses, Slot};
pub(crate) use half_open::{HalfOpen, Place};
pub(crate) use pace::Pace;
pub use proxy::{Introduced, read_proxy_header};
pub(crate) use refusals::{Refusal, Refusals};

use crate::config::{IpList, ProtectionConfig};
use crate::error::Error;
use crate::link::{Endpoint, Link};

/// The rules of one listener.
pub(crate) struct Door {
    allow: IpList,
    deny: IpList,
    proxies: IpList,
    exempt: IpList,
    /// Shared by all listeners.
    addresses: Arc<Addresses>,
}

/// Whom a listener has accepted.
pub(crate) enum Knock {
    /// Somebody who is let in, with his place among those of his address.
    Client(Option<Slot>),
    /// A proxy, which has to say first for whom.
    Proxy,
}

/// Why a connection that was accepted did not open.
pub(crate) enum Unopened {
    /// It breaks a rule, which the peer caused.
    Refused(Refusal, Endpoint),
    /// What the proxy said makes no sense.
    Header(Error),
    /// Its handshake has failed.
    Handshake(Error),
}

impl Door {
    pub(crate) fn new(config: &ProtectionConfig, addresses: &Arc<Addresses>) -> Self {
        Self {
            allow: config.allow.clone(),
            deny: config.deny.clone(),
            proxies: config.proxies.clone(),
            exempt: config.exempt.clone(),
            addresses: addresses.clone(),
        }
    }

    /// Looks at who has connected.
    pub(crate) fn knock(&self, peer: &Endpoint) -> Result<Knock, Refusal> {
        match peer.ip() {
            Some(ip) if !self.proxies.is_empty() => match self.proxies.contains(ip) {
                true => Ok(Knock::Proxy),
                false => Err(Refusal::NoProxy),
            },
            _ => self.enter(peer).map(Knock::Client),
        }
    }

    /// Whether a client is let in, and his place then.
    pub(crate) fn enter(&self, peer: &Endpoint) -> Result<Option<Slot>, Refusal> {
        let Some(ip) = peer.ip() else {
            return Ok(None);
        };
        let allowed = self.allow.is_empty() || self.allow.contains(ip);
        if !allowed || self.deny.contains(ip) {
            return Err(Refusal::Denied);
        }
        if self.exempt.contains(ip) {
            return Ok(None);
        }
        Addresses::enter(&self.addresses, ip)
    }

    /// Does what has to be done before messages can move. The caller sets the deadline.
    pub(crate) async fn open<L: Link>(
        &self,
        mut link: L,
        knock: Knock,
    ) -> Result<(L, Option<Slot>), Unopened> {
        let slot = match knock {
            Knock::Client(slot) => slot,
            Knock::Proxy => {
                let introduced = link.learn_client().await.map_err(Unopened::Header)?;
                let peer = &link.info().peer;
                match introduced {
                    // on whatever list its clients are, it is trusted
                    Introduced::Itself => None,
                    Introduced::Client | Introduced::Nobody => self
                        .enter(peer)
                        .map_err(|refusal| Unopened::Refused(refusal, peer.clone()))?,
                }
            }
        };
        match link.is_open() {
            true => Ok((link, slot)),
            false => match link.open().await {
                Ok(link) => Ok((link, slot)),
                Err(error) => Err(Unopened::Handshake(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn door(config: &ProtectionConfig) -> Door {
        Door::new(config, &Addresses::new(config))
    }

    fn peer(ip: &str) -> Endpoint {
        Endpoint::Ip(SocketAddr::new(ip.parse().unwrap(), 1))
    }

    fn enter(door: &Door, ip: &str) -> Result<Option<Slot>, Refusal> {
        match door.knock(&peer(ip)) {
            Ok(Knock::Client(slot)) => Ok(slot),
            Ok(Knock::Proxy) => panic!("there is none"),
            Err(refusal) => Err(refusal),
        }
    }

    /// 1000 connections of one address, and as many new ones at once; loopback has no limit.
    #[tokio::test(start_paused = true)]
    async fn the_defaults_hold() {
        let door = door(&ProtectionConfig::default());
        let fill = |ip: &str| {
            let all: Result<Vec<_>, _> = (0..1000).map(|_| enter(&door, ip)).collect();
            all.ok()
        };
        let held = fill("192.0.2.1");
        assert!(held.is_some());
        assert_eq!(enter(&door, "192.0.2.1").err(), Some(Refusal::PerIp));
        drop(held);
        assert_eq!(
            enter(&door, "192.0.2.1").err(),
            Some(Refusal::ConnectionRate)
        );
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let back = (0..1000).filter(|_| enter(&door, "192.0.2.1").is_ok());
        assert_eq!(back.count(), 100);
        assert!(fill("2001:db8::1").is_some());
        for ip in ["127.0.0.1", "::1"] {
            let held: Vec<_> = (0..5000).map(|_| enter(&door, ip)).collect();
            assert!(held.iter().all(|slot| matches!(slot, Ok(None))));
        }
    }

    /// Who is not on the list of proxies is never asked what he has to say.
    #[test]
    fn only_proxies_may_say_who_they_are() {
        let door = door(&ProtectionConfig {
            proxies: "10.0.0.0/8".parse().unwrap(),
            deny: "10.0.0.0/8".parse().unwrap(),
            ..ProtectionConfig::default()
        });
        let knock = |peer: &Endpoint| door.knock(peer).map(|knock| matches!(knock, Knock::Proxy));
        assert_eq!(knock(&peer("10.1.2.3")), Ok(true));
        assert_eq!(knock(&peer("::ffff:10.1.2.3")), Ok(true));
        for stranger in ["11.0.0.1", "127.0.0.1", "::1", "::10.1.2.3"] {
            assert_eq!(knock(&peer(stranger)), Err(Refusal::NoProxy));
        }
        assert_eq!(knock(&Endpoint::Unix(None)), Ok(false));
    }
}
