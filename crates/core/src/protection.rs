//! Who is let in, and how much of one peer is put up with. What is spent on a connection before it is
//! let in stands here, so it is little: look-ups in lists, and one in a table of addresses.
//!
//! | File | What it does |
//! |---|---|
//! | `addresses.rs` | connections and new ones per second of each IP address |
//! | `refusals.rs` | why connections are refused, counted, and logged now and then |
//! | `proxy.rs` | the client that a proxy in front speaks for |
//! | `pace.rs` | messages and bytes per second of one session |

mod addresses;
mod pace;
mod proxy;
mod refusals;

use std::sync::Arc;

pub(crate) use addresses::{Addresses, Slot};
pub(crate) use pace::Pace;
pub use proxy::read_proxy_header;
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
    fn enter(&self, peer: &Endpoint) -> Result<Option<Slot>, Refusal> {
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
                link.learn_client().await.map_err(Unopened::Header)?;
                let peer = &link.info().peer;
                self.enter(peer)
                    .map_err(|refusal| Unopened::Refused(refusal, peer.clone()))?
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
