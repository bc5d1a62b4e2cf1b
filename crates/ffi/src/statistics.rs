//! Statistics as a C struct.

use network_system::Statistics;

/// What a server or client has done since its start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(non_camel_case_types)]
pub struct ns_statistics {
    /// Connections that are open now.
    pub connections_active: u64,
    /// Connections that were accepted or made.
    pub connections_total: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Messages written.
    pub messages_out: u64,
    /// Bytes received, framing included.
    pub bytes_in: u64,
    /// Bytes written, framing included.
    pub bytes_out: u64,
    /// Messages dropped, or left unwritten by a connection's end.
    pub messages_dropped: u64,
    /// Bytes that wait to be written now.
    pub queued_bytes: u64,
}

impl From<Statistics> for ns_statistics {
    fn from(from: Statistics) -> Self {
        Self {
            connections_active: from.connections_active,
            connections_total: from.connections_total,
            messages_in: from.messages_in,
            messages_out: from.messages_out,
            bytes_in: from.bytes_in,
            bytes_out: from.bytes_out,
            messages_dropped: from.messages_dropped,
            queued_bytes: from.queued_bytes,
        }
    }
}
