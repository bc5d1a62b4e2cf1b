//! Every family of metrics that the page may have, in its order: [`FAMILIES`].

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by upper bounds.
    Histogram,
}

/// Metrics of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Family {
    /// Its name, such as `network_system_connections_active`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it means.
    pub help: &'static str,
}

const fn family(name: &'static str, kind: Kind, help: &'static str) -> Family {
    Family { name, kind, help }
}

/// All of them; docs/METRICS.md has units and labels.
pub const FAMILIES: &[Family] = &[
    family(
        "network_system_connections_active",
        Kind::Gauge,
        "Connections that are open now.",
    ),
    family(
        "network_system_connections_total",
        Kind::Counter,
        "Connections that were accepted or made.",
    ),
    family(
        "network_system_listeners",
        Kind::Gauge,
        "Addresses that are listened on now.",
    ),
    family(
        "network_system_connections_refused_total",
        Kind::Counter,
        "Connections that were turned away.",
    ),
    family(
        "network_system_connections_ended_total",
        Kind::Counter,
        "Connections that have ended.",
    ),
    family(
        "network_system_connect_errors_total",
        Kind::Counter,
        "Failures to accept or to connect.",
    ),
    family(
        "network_system_rate_pauses_total",
        Kind::Counter,
        "How often a session was not read from for a while because its peer sent too much.",
    ),
    family(
        "network_system_messages_received_total",
        Kind::Counter,
        "Messages received.",
    ),
    family(
        "network_system_messages_sent_total",
        Kind::Counter,
        "Messages written to the transport.",
    ),
    family(
        "network_system_received_bytes_total",
        Kind::Counter,
        "Bytes received, framing included.",
    ),
    family(
        "network_system_sent_bytes_total",
        Kind::Counter,
        "Bytes written, framing included.",
    ),
    family(
        "network_system_messages_dropped_total",
        Kind::Counter,
        "Messages that an overflow policy dropped, or that a connection's end left unwritten.",
    ),
    family(
        "network_system_queued_bytes",
        Kind::Gauge,
        "Bytes that wait in outboxes now.",
    ),
    family(
        "network_system_message_latency_seconds",
        Kind::Histogram,
        "From the read that brought a message to the write of what its handler sent.",
    ),
    family(
        "network_system_sessions_active",
        Kind::Gauge,
        "Sessions that the handler has let in.",
    ),
    family(
        "network_system_ready",
        Kind::Gauge,
        "1 when a server takes work or a client is connected, 0 in a drain and while there is no connection.",
    ),
    family(
        "network_system_uptime_seconds",
        Kind::Gauge,
        "Time since the start.",
    ),
    family(
        "network_system_http_requests_active",
        Kind::Gauge,
        "HTTP requests that are being answered.",
    ),
    family(
        "network_system_http_requests_total",
        Kind::Counter,
        "HTTP requests that have ended.",
    ),
    family(
        "network_system_http_responses_total",
        Kind::Counter,
        "HTTP requests that were answered, by the class of the status.",
    ),
    family(
        "network_system_http_aborted_total",
        Kind::Counter,
        "HTTP requests whose answer did not go out whole.",
    ),
    family(
        "network_system_http_received_bytes_total",
        Kind::Counter,
        "Bytes received on HTTP connections.",
    ),
    family(
        "network_system_http_sent_bytes_total",
        Kind::Counter,
        "Bytes written on HTTP connections.",
    ),
    family(
        "network_system_http_request_duration_seconds",
        Kind::Histogram,
        "From the head of a request to the last byte of its answer.",
    ),
    family(
        "network_system_pool_connections",
        Kind::Gauge,
        "Connections of a pool: idle, or lent or being made.",
    ),
    family(
        "network_system_pool_waiting",
        Kind::Gauge,
        "Calls that wait for a connection.",
    ),
    family(
        "network_system_pool_acquired_total",
        Kind::Counter,
        "Connections that were lent.",
    ),
    family(
        "network_system_pool_timeouts_total",
        Kind::Counter,
        "Calls that got no connection in time.",
    ),
    family(
        "network_system_pool_created_total",
        Kind::Counter,
        "Connections that were made for a pool.",
    ),
    family(
        "network_system_pool_failed_total",
        Kind::Counter,
        "Connections that could not be made for a pool.",
    ),
    family(
        "network_system_pool_discarded_total",
        Kind::Counter,
        "Connections of a pool that were discarded.",
    ),
    family(
        "network_system_request_pool_open",
        Kind::Gauge,
        "Connections of a pool of requests that are up.",
    ),
    family(
        "network_system_request_pool_in_use",
        Kind::Gauge,
        "Requests that wait for their answers.",
    ),
    family(
        "network_system_request_pool_requests_total",
        Kind::Counter,
        "Requests that were made, each counted once.",
    ),
    family(
        "network_system_request_pool_failures_total",
        Kind::Counter,
        "Requests that failed in the end.",
    ),
    family(
        "network_system_request_pool_timeouts_total",
        Kind::Counter,
        "Requests that got no answer in time.",
    ),
    family(
        "network_system_request_pool_refused_total",
        Kind::Counter,
        "Requests that were refused: the pool was closed, or a breaker open.",
    ),
    family(
        "network_system_request_pool_retries_total",
        Kind::Counter,
        "Requests that were made again after a failure.",
    ),
    family(
        "network_system_request_pool_hedges_total",
        Kind::Counter,
        "Second requests beside one that took long.",
    ),
    family(
        "network_system_breaker_state",
        Kind::Gauge,
        "1 for the state that a circuit breaker is in, 0 for the others.",
    ),
    family(
        "network_system_breaker_successes_total",
        Kind::Counter,
        "Calls that succeeded.",
    ),
    family(
        "network_system_breaker_failures_total",
        Kind::Counter,
        "Calls that failed in a way that counts.",
    ),
    family(
        "network_system_breaker_refused_total",
        Kind::Counter,
        "Calls that a circuit breaker refused.",
    ),
    family(
        "network_system_breaker_opened_total",
        Kind::Counter,
        "How often a circuit breaker opened.",
    ),
    family(
        "network_system_thread_pool_threads",
        Kind::Gauge,
        "Threads of a pool.",
    ),
    family(
        "network_system_thread_pool_running",
        Kind::Gauge,
        "Tasks that run now.",
    ),
    family(
        "network_system_thread_pool_queued",
        Kind::Gauge,
        "Tasks that wait for a thread.",
    ),
    family(
        "network_system_thread_pool_delayed",
        Kind::Gauge,
        "Tasks whose time has not come.",
    ),
    family(
        "network_system_thread_pool_completed_total",
        Kind::Counter,
        "Tasks that have ended, panics included.",
    ),
    family(
        "network_system_thread_pool_panicked_total",
        Kind::Counter,
        "Tasks that have panicked.",
    ),
    family(
        "network_system_thread_pool_refused_total",
        Kind::Counter,
        "Tasks that were not taken.",
    ),
    family(
        "network_system_build_info",
        Kind::Gauge,
        "Always 1; the labels tell which build this is.",
    ),
];
