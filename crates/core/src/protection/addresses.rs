//! How many connections each IP address has, and how quickly it makes new ones: [`Addresses`].

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::Refusal;
use crate::config::ProtectionConfig;

/// Locks that addresses spread over.
const SHARDS: usize = 16;
/// Addresses without a connection that one shard remembers, because they have made many lately.
const MOST_IDLE: usize = 4096;

/// The addresses that have connections, or had many lately. Counts are exact, and there are no more
/// of them than connections. What is remembered beyond that is bounded: under a flood from more
/// addresses than that, it is forgotten how quickly those without a connection made their last.
pub(crate) struct Addresses {
    shards: [Mutex<Shard>; SHARDS],
    /// Nobody outside knows which addresses fall together.
    hasher: RandomState,
    most: u32,
    rate: Option<Rate>,
    started: Instant,
}

/// New connections: one per `period` in the long run, and as many at once as fit in `burst`.
#[derive(Clone, Copy)]
struct Rate {
    period: u64,
    burst: u64,
}

#[derive(Default)]
struct Shard {
    table: HashMap<Key, Entry>,
    /// Entries without a connection.
    idle: usize,
}

/// What is one peer: an IPv4 address, or the first half of an IPv6 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    V4(u32),
    V6(u64),
}

impl Key {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.into()),
            IpAddr::V6(address) => Self::V6((u128::from(address) >> 64) as u64),
        }
    }
}

/// Times are in nanoseconds since the start.
#[derive(Default)]
struct Entry {
    connections: u32,
    /// When all that it has used of its rate has come back.
    free_at: u64,
}

/// A place among the connections of an address, given up when it is dropped.
pub(crate) struct Slot {
    addresses: Arc<Addresses>,
    key: Key,
}

impl Addresses {
    pub(crate) fn new(config: &ProtectionConfig) -> Arc<Self> {
        let per_second = u64::from(config.connections_per_second_per_ip);
        let period = 1_000_000_000_u64.checked_div(per_second);
        let burst = u64::from(config.connection_burst_per_ip.max(1));
        Arc::new(Self {
            shards: Default::default(),
            hasher: RandomState::new(),
            most: u32::try_from(config.max_connections_per_ip).unwrap_or(u32::MAX),
            rate: period.map(|period| {
                let period = period.max(1);
                let burst = period.saturating_mul(burst);
                Rate { period, burst }
            }),
            started: Instant::now(),
        })
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        let n = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[n]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A place for another connection of this address; `None` where there is no limit.
    pub(crate) fn enter(all: &Arc<Self>, address: IpAddr) -> Result<Option<Slot>, Refusal> {
        if all.most == 0 && all.rate.is_none() {
            return Ok(None);
        }
        let (key, now) = (Key::of(address), all.now());
        all.shard(key).enter(key, now, all.most, all.rate)?;
        let addresses = all.clone();
        Ok(Some(Slot { addresses, key }))
    }
}

impl Shard {
    fn enter(&mut self, key: Key, now: u64, most: u32, rate: Option<Rate>) -> Result<(), Refusal> {
        let known = self.table.contains_key(&key);
        let entry = self.table.entry(key).or_default();
        if most > 0 && entry.connections >= most {
            return Err(Refusal::PerIp);
        }
        if let Some(Rate { period, burst }) = rate {
            let free_at = entry.free_at.max(now).saturating_add(period);
            if free_at - now > burst {
                return Err(Refusal::ConnectionRate);
            }
            entry.free_at = free_at;
        }
        self.idle -= usize::from(known && entry.connections == 0);
        entry.connections += 1;
        Ok(())
    }

    fn leave(&mut self, key: Key, now: u64) {
        let Some(entry) = self.table.get_mut(&key) else {
            return;
        };
        entry.connections -= 1;
        if entry.connections > 0 {
            return;
        }
        if entry.free_at <= now {
            self.table.remove(&key);
            return;
        }
        self.idle += 1;
        if self.idle > MOST_IDLE {
            self.forget(now);
        }
    }

    /// Forgets who has been quiet, or everybody without a connection if that does not help: so the
    /// next time is at least half as many connections away.
    #[cold]
    fn forget(&mut self, now: u64) {
        let quiet = |entry: &Entry| entry.connections == 0 && entry.free_at <= now;
        self.table.retain(|_, entry| !quiet(entry));
        let idle = self.table.values().filter(|entry| entry.connections == 0);
        self.idle = idle.count();
        if self.idle > MOST_IDLE / 2 {
            self.table.retain(|_, entry| entry.connections > 0);
            self.idle = 0;
        }
        self.table.shrink_to(2 * MOST_IDLE);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let now = self.addresses.now();
        self.addresses.shard(self.key).leave(self.key, now);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use super::*;

    fn addresses(most: usize, rate: u32, burst: u32) -> Arc<Addresses> {
        Addresses::new(&ProtectionConfig {
            max_connections_per_ip: most,
            connections_per_second_per_ip: rate,
            connection_burst_per_ip: burst,
            ..ProtectionConfig::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn known(addresses: &Addresses) -> usize {
        let shards = addresses.shards.iter();
        shards.map(|shard| shard.lock().unwrap().table.len()).sum()
    }

    #[test]
    fn places_are_counted_and_come_back() {
        let all = addresses(2, 0, 1);
        let enter = |text| Addresses::enter(&all, ip(text)).map(Option::unwrap);
        let first = enter("192.0.2.1").ok();
        let mapped = enter("::ffff:192.0.2.1").ok();
        assert!(mapped.is_some());
        assert_eq!(enter("192.0.2.1").err(), Some(Refusal::PerIp));
        let other = enter("192.0.2.2").ok();
        assert!(other.is_some());
        drop(first);
        let again = enter("192.0.2.1").ok();
        assert!(again.is_some());
        drop((again, mapped, other));
        assert_eq!(known(&all), 0, "nothing is remembered of who has left");
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        let all = addresses(1, 0, 1);
        let _slot = Addresses::enter(&all, ip("2001:db8::1")).ok();
        let same = Addresses::enter(&all, ip("2001:db8::ffff:1")).err();
        assert_eq!(same, Some(Refusal::PerIp));
        assert!(Addresses::enter(&all, ip("2001:db8:0:1::1")).is_ok());
        // no IPv4 address falls together with an IPv6 network
        assert!(Addresses::enter(&all, ip("0.0.0.0")).is_ok());
        assert!(Addresses::enter(&all, ip("::5")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn new_connections_have_a_rate_and_a_burst() {
        let all = addresses(0, 10, 3);
        let enter = || Addresses::enter(&all, ip("192.0.2.1"));
        for _ in 0..3 {
            assert!(enter().is_ok());
        }
        assert_eq!(enter().err(), Some(Refusal::ConnectionRate));
        // what was refused costs nothing
        tokio::time::advance(Duration::from_millis(101)).await;
        assert!(enter().is_ok() && enter().is_err());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!((0..10).filter(|_| enter().is_ok()).count(), 3);
    }

    #[test]
    fn numbers_that_are_as_large_as_can_be() {
        let all = addresses(usize::MAX, u32::MAX, u32::MAX);
        let slots: Vec<_> = (0..100)
            .map(|_| Addresses::enter(&all, ip("::1")))
            .collect();
        assert!(slots.iter().all(Result::is_ok));
        let all = addresses(0, 0, 0);
        assert!(matches!(Addresses::enter(&all, ip("::1")), Ok(None)));
        let all = addresses(0, 1, u32::MAX);
        assert!(Addresses::enter(&all, ip("::1")).is_ok());
    }

    /// A flood from ever new addresses does not fill the memory, and does not make it forget who has
    /// connections.
    #[test]
    fn what_is_remembered_is_bounded() {
        let all = addresses(1, 1, 1);
        let held = Addresses::enter(&all, ip("192.0.2.1")).ok();
        for n in 0..200_000_u32 {
            let address = IpAddr::V4(Ipv4Addr::from(n | 0x0a00_0000));
            assert!(Addresses::enter(&all, address).is_ok());
            let address = IpAddr::V6(Ipv6Addr::from(u128::from(n | 0x2000_0000) << 96));
            assert!(Addresses::enter(&all, address).is_ok());
        }
        assert!(known(&all) <= SHARDS * (MOST_IDLE + 1), "{}", known(&all));
        assert_eq!(
            Addresses::enter(&all, ip("192.0.2.1")).err(),
            Some(Refusal::PerIp)
        );
        drop(held);
    }

    #[test]
    fn threads_share_the_counts() {
        let all = addresses(1000, 0, 1);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..10_000_u32 {
                        let address = IpAddr::V4(Ipv4Addr::from(n % 7));
                        assert!(Addresses::enter(&all, address).is_ok());
                    }
                });
            }
        });
        assert_eq!(known(&all), 0);
    }
}
