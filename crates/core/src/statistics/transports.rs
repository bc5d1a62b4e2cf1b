//! What is counted by transport: [`TransportCounters`], and the [`TransportStatistics`] made from them.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// More than there are schemes; what comes beyond counts as `other`.
const MOST: usize = 16;

/// The connections of one transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TransportStatistics {
    /// Connections that are open now.
    pub connections_active: u64,
    /// Connections that were accepted or made. One that becomes another, as HTTP becomes a WebSocket,
    /// is in both.
    pub connections_total: u64,
    /// Addresses that are listened on now; always 0 of a client.
    pub listeners: u64,
}

impl TransportStatistics {
    /// The name under which a listener of this scheme is counted.
    pub(crate) fn name(scheme: &str) -> &'static str {
        const NAMES: [&str; 13] = [
            "auto", "dtls", "http", "https", "memory", "quic", "tcp", "tls", "udp", "unix", "ws",
            "wss", "grpc",
        ];
        let known = NAMES.iter().find(|name| **name == scheme);
        known.copied().unwrap_or("other")
    }
}

/// A line of the table, whose name is written once.
#[derive(Default)]
struct Line {
    scheme: OnceLock<&'static str>,
    active: AtomicU64,
    total: AtomicU64,
    listeners: AtomicU64,
}

/// Counts by scheme, without a lock: it is looked at once when a connection begins and once at its end.
#[derive(Default)]
pub(super) struct TransportCounters {
    lines: [Line; MOST],
    other: Line,
}

impl TransportCounters {
    fn line(&self, scheme: &'static str) -> &Line {
        let found = self.lines.iter().find(|line| {
            // the first one that is free becomes its own; another thread may have been quicker
            *line.scheme.get_or_init(|| scheme) == scheme
        });
        found.unwrap_or(&self.other)
    }

    pub(super) fn opened(&self, scheme: &'static str) {
        let line = self.line(scheme);
        line.active.fetch_add(1, Relaxed);
        line.total.fetch_add(1, Relaxed);
    }

    pub(super) fn closed(&self, scheme: &'static str) {
        self.line(scheme).active.fetch_sub(1, Relaxed);
    }

    pub(super) fn listens(&self, scheme: &'static str) {
        self.line(scheme).listeners.fetch_add(1, Relaxed);
    }

    pub(super) fn stopped(&self) {
        for line in self.lines.iter().chain([&self.other]) {
            line.listeners.store(0, Relaxed);
        }
    }

    pub(super) fn snapshot(&self) -> BTreeMap<&'static str, TransportStatistics> {
        let named = |line: &Line, name| {
            let statistics = TransportStatistics {
                connections_active: line.active.load(Relaxed),
                connections_total: line.total.load(Relaxed),
                listeners: line.listeners.load(Relaxed),
            };
            (name, statistics)
        };
        let lines = self.lines.iter();
        let known = lines.filter_map(|line| Some(named(line, *line.scheme.get()?)));
        let other = named(&self.other, "other");
        let other = (other.1 != TransportStatistics::default()).then_some(other);
        known.chain(other).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_is_counted_alone_and_there_is_an_end_to_them() {
        let counters = TransportCounters::default();
        counters.listens("tcp");
        counters.opened("tcp");
        counters.opened("tls");
        counters.opened("tls");
        counters.closed("tls");
        let all = counters.snapshot();
        assert_eq!(
            (all["tcp"].connections_active, all["tcp"].listeners),
            (1, 1)
        );
        assert_eq!(
            (all["tls"].connections_active, all["tls"].connections_total),
            (1, 2)
        );
        let many: Vec<&'static str> = (0..20).map(|n| &*format!("s{n}").leak()).collect();
        for scheme in &many {
            counters.opened(scheme);
        }
        let all = counters.snapshot();
        assert_eq!(all["other"].connections_total, 20 - (MOST as u64 - 2));
        counters.stopped();
        assert_eq!(counters.snapshot()["tcp"].listeners, 0);
    }
}
