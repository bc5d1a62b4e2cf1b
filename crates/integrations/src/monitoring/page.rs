//! The page while it is filled: [`Page`].

use std::collections::BTreeMap;

use indexmap::IndexMap;
use metrics::{Key, Label};
use metrics_exporter_prometheus::{LabelSet, formatting};
use network_system_core::threads::ThreadPoolStatistics;
use network_system_core::{
    BreakerState, BreakerStatistics, HttpStatistics, Latency, PoolStatistics,
    RequestPoolStatistics, Statistics,
};

use super::families::{FAMILIES, Kind};

/// The lines of each family.
#[derive(Default)]
pub(super) struct Page(BTreeMap<&'static str, Vec<Line>>);

struct Line {
    labels: LabelSet,
    value: Value,
}

enum Value {
    Whole(u64),
    Real(f64),
    Durations(Box<Latency>),
}

/// The label of whom the lines are about, such as `server="chat"`.
type Who<'a> = (&'static str, &'a str);

impl Page {
    fn add(&mut self, family: &'static str, labels: &[(&'static str, &str)], value: Value) {
        let labels = labels.iter();
        let labels: Vec<Label> = labels
            .map(|(k, v)| Label::new(*k, (*v).to_owned()))
            .collect();
        let key = Key::from_parts(family, labels);
        let labels = LabelSet::from_key_and_global(&key, &IndexMap::new());
        let lines = self.0.entry(family).or_default();
        lines.push(Line { labels, value });
    }

    fn whole(&mut self, family: &'static str, labels: &[(&'static str, &str)], value: u64) {
        self.add(family, labels, Value::Whole(value));
    }

    /// One line of each family for one thing.
    fn all(&mut self, who: Who<'_>, values: &[(&'static str, u64)]) {
        for (family, value) in values {
            self.whole(family, &[who], *value);
        }
    }

    fn by<'a>(
        &mut self,
        family: &'static str,
        who: Who<'_>,
        label: &'static str,
        counts: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        for (value, count) in counts {
            self.whole(family, &[who, (label, value)], count);
        }
    }

    /// A server or client.
    pub(super) fn peer(
        &mut self,
        role: &'static str,
        name: &str,
        s: &Statistics,
        ready: bool,
        sessions: Option<usize>,
    ) {
        let who = (role, name);
        for (transport, t) in &s.transports {
            let labels = [who, ("transport", *transport)];
            let active = t.connections_active;
            self.whole("network_system_connections_active", &labels, active);
            let total = t.connections_total;
            self.whole("network_system_connections_total", &labels, total);
            if role == "server" {
                self.whole("network_system_listeners", &labels, t.listeners);
            }
        }
        let refused = s.connections_refused.iter().map(|(k, v)| (*k, *v));
        self.by(
            "network_system_connections_refused_total",
            who,
            "reason",
            refused,
        );
        let ended = s.connections_ended.iter().map(|(k, v)| (*k, *v));
        self.by(
            "network_system_connections_ended_total",
            who,
            "reason",
            ended,
        );
        self.all(
            who,
            &[
                ("network_system_connect_errors_total", s.connect_errors),
                ("network_system_rate_pauses_total", s.rate_pauses),
                ("network_system_messages_received_total", s.messages_in),
                ("network_system_messages_sent_total", s.messages_out),
                ("network_system_received_bytes_total", s.bytes_in),
                ("network_system_sent_bytes_total", s.bytes_out),
                ("network_system_messages_dropped_total", s.messages_dropped),
                ("network_system_queued_bytes", s.queued_bytes),
                ("network_system_ready", u64::from(ready)),
            ],
        );
        if let Some(sessions) = sessions {
            self.whole("network_system_sessions_active", &[who], sessions as u64);
            self.http(who, &s.http);
        }
        let latency = Value::Durations(Box::new(s.latency));
        self.add("network_system_message_latency_seconds", &[who], latency);
        let uptime = Value::Real(s.uptime.as_secs_f64());
        self.add("network_system_uptime_seconds", &[who], uptime);
    }

    fn http(&mut self, who: Who<'_>, s: &HttpStatistics) {
        let methods = s.by_method.iter().map(|(k, v)| (*k, *v));
        self.by("network_system_http_requests_total", who, "method", methods);
        let classes = s.by_status.iter().map(|(k, v)| (*k, *v));
        self.by("network_system_http_responses_total", who, "class", classes);
        self.all(
            who,
            &[
                ("network_system_http_requests_active", s.active),
                ("network_system_http_aborted_total", s.aborted),
                ("network_system_http_received_bytes_total", s.bytes_in),
                ("network_system_http_sent_bytes_total", s.bytes_out),
            ],
        );
        let latency = Value::Durations(Box::new(s.latency));
        self.add(
            "network_system_http_request_duration_seconds",
            &[who],
            latency,
        );
    }

    pub(super) fn pool(&mut self, name: &str, s: &PoolStatistics) {
        let who = ("pool", name);
        let states = [("idle", s.idle as u64), ("in_use", s.in_use as u64)];
        self.by("network_system_pool_connections", who, "state", states);
        let discarded = [
            ("broken", s.discarded_broken),
            ("idle", s.discarded_idle),
            ("age", s.discarded_age),
            ("evicted", s.discarded_evicted),
            ("by_user", s.discarded_by_user),
            ("closed", s.discarded_closed),
        ];
        self.by(
            "network_system_pool_discarded_total",
            who,
            "reason",
            discarded,
        );
        self.all(
            who,
            &[
                ("network_system_pool_waiting", s.waiting as u64),
                ("network_system_pool_acquired_total", s.acquired),
                ("network_system_pool_timeouts_total", s.timeouts),
                ("network_system_pool_created_total", s.created),
                ("network_system_pool_failed_total", s.failed),
            ],
        );
    }

    pub(super) fn request_pool(&mut self, name: &str, s: &RequestPoolStatistics) {
        self.all(
            ("pool", name),
            &[
                ("network_system_request_pool_open", s.open as u64),
                ("network_system_request_pool_in_use", s.in_use as u64),
                ("network_system_request_pool_requests_total", s.requests),
                ("network_system_request_pool_failures_total", s.failures),
                ("network_system_request_pool_timeouts_total", s.timeouts),
                ("network_system_request_pool_refused_total", s.refused),
                ("network_system_request_pool_retries_total", s.retries),
                ("network_system_request_pool_hedges_total", s.hedges),
            ],
        );
    }

    pub(super) fn breaker(&mut self, name: &str, state: BreakerState, s: BreakerStatistics) {
        let who = ("breaker", name);
        let states = [
            ("closed", BreakerState::Closed),
            ("open", BreakerState::Open),
            ("half_open", BreakerState::HalfOpen),
        ];
        let states = states.map(|(name, one)| (name, u64::from(one == state)));
        self.by("network_system_breaker_state", who, "state", states);
        self.all(
            who,
            &[
                ("network_system_breaker_successes_total", s.successes),
                ("network_system_breaker_failures_total", s.failures),
                ("network_system_breaker_refused_total", s.refused),
                ("network_system_breaker_opened_total", s.opened),
            ],
        );
    }

    pub(super) fn thread_pool(&mut self, name: &str, s: ThreadPoolStatistics) {
        self.all(
            ("pool", name),
            &[
                ("network_system_thread_pool_threads", s.threads),
                ("network_system_thread_pool_running", s.running),
                ("network_system_thread_pool_queued", s.queued),
                ("network_system_thread_pool_delayed", s.delayed),
                ("network_system_thread_pool_completed_total", s.completed),
                ("network_system_thread_pool_panicked_total", s.panicked),
                ("network_system_thread_pool_refused_total", s.refused),
            ],
        );
    }

    pub(super) fn build_info(&mut self) {
        let labels = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("os", std::env::consts::OS),
            ("arch", std::env::consts::ARCH),
        ];
        self.whole("network_system_build_info", &labels, 1);
    }

    /// The families in their order, those without lines left out.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for family in FAMILIES {
            let Some(lines) = self.0.get(family.name) else {
                continue;
            };
            formatting::write_help_line(&mut text, family.name, None, None, family.help);
            let kind = family.kind.label();
            formatting::write_type_line(&mut text, family.name, None, None, kind);
            for line in lines {
                write(&mut text, family.name, line);
            }
        }
        text
    }
}

fn write(text: &mut String, name: &str, line: &Line) {
    let mut one = |suffix, le: Option<String>, value: f64| {
        let le = le.map(|le| ("le", le));
        formatting::write_metric_line(text, name, suffix, &line.labels, le, value, None);
    };
    match &line.value {
        // not over floating point, which has no place for the last digits
        Value::Whole(value) => {
            let none = None::<(_, u64)>;
            formatting::write_metric_line(text, name, None, &line.labels, none, *value, None);
        }
        Value::Real(value) => one(None, None, *value),
        Value::Durations(latency) => {
            for (bound, count) in Latency::BOUNDS.iter().zip(latency.buckets) {
                let le = bound.as_secs_f64().to_string();
                one(Some("bucket"), Some(le), count as f64);
            }
            let count = latency.count as f64;
            one(Some("bucket"), Some("+Inf".to_owned()), count);
            one(Some("sum"), None, latency.sum.as_secs_f64());
            one(Some("count"), None, count);
        }
    }
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}
