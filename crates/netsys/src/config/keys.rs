//! Every key of `netsys.toml`: what it means and what it may be. The printed file, the suggestions
//! and the error messages all come from this one table.

use std::fmt::Write as _;

use toml::{Table, Value};

use super::Settings;
use crate::failure::{Failure, Result};

/// One key of the file.
struct Key {
    /// Where it stands, such as `server.session.max_message`.
    path: &'static str,
    /// What it means.
    what: &'static str,
    /// What it may be.
    allowed: &'static str,
    /// What is shown in place of a value that is not set.
    unset: Option<&'static str>,
}

const fn key(path: &'static str, what: &'static str, allowed: &'static str) -> Key {
    Key {
        path,
        what,
        allowed,
        unset: None,
    }
}

const fn unset(path: &'static str, what: &'static str, shown: &'static str) -> Key {
    Key {
        path,
        what,
        allowed: BYTES,
        unset: Some(shown),
    }
}

/// A key of a table that is not there unless it is written.
const fn optional(
    path: &'static str,
    what: &'static str,
    allowed: &'static str,
    shown: &'static str,
) -> Key {
    Key {
        path,
        what,
        allowed,
        unset: Some(shown),
    }
}

const BYTES: &str = "a number of bytes";
const POSITIVE: &str = "a number of bytes, at least 1";
const COUNT: &str = "a whole number, at least 1";
const KEY_FILE: &str = "the path of a file that has 64 hexadecimal digits";
const BITS: &str = "a number from 9 to 15";
const SWITCH: &str = "true or false";
const DURATION: &str = "a duration in quotes, such as \"10s\" or \"1m 30s\"";
const FILES: &str = "a list of files in PEM form, such as [\"/etc/tls/ca.pem\"]";
const NETWORKS: &str =
    "a list of networks and addresses, such as [\"10.0.0.0/8\", \"2001:db8::1\"]";
const RATE: &str = "a whole number; 0 is no limit";
const OPTIONAL: &str = "a duration in quotes, such as \"30s\", or \"off\"";

/// In the order of the file; the keys of one table stand together, before those of its subtables.
const KEYS: &[Key] = &[
    key(
        "mode",
        "What the server does with messages.",
        "\"echo\", \"discard\", \"broadcast\" or \"upper\"",
    ),
    key(
        "log",
        "What is logged to standard error.",
        "\"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or targets with levels, \
         such as \"warn,network_system_core=debug\"",
    ),
    key(
        "admin.listen",
        "Where the dashboard, metrics, health and the JSON API are; nowhere, if empty. Others than \
         this machine need a token there.",
        "an address in quotes, such as \"127.0.0.1:9090\", or a URL with http:// or https://",
    ),
    key(
        "admin.token_file",
        "The file whose first line is the bearer token; without one nothing can be changed there.",
        "the path of a file, or \"\" for none",
    ),
    key(
        "server.listen",
        "Addresses to listen on.",
        "a list of addresses, such as [\"tcp://127.0.0.1:8080\", \"unix:///run/netsys.sock\"]",
    ),
    key(
        "server.workers",
        "Threads, each with listeners of its own; 0 serves on the main thread.",
        "a whole number from 0 to 1024",
    ),
    key(
        "server.max_connections",
        "Connections at most; more are turned away.",
        COUNT,
    ),
    key(
        "server.handshake_timeout",
        "How long a new connection may take for its handshake, where there is one.",
        DURATION,
    ),
    key(
        "server.shutdown_timeout",
        "How long connections may take to finish at the end.",
        DURATION,
    ),
    key(
        "server.drain_window",
        "The time over which many connections are told of the end, so that they do not all come \
         back at once.",
        DURATION,
    ),
    key(
        "server.worker.busy_poll",
        "How long a thread looks for input before it sleeps, as long as that pays.",
        "a duration in quotes, at most \"10ms\", such as \"50us\", or \"off\"",
    ),
    key(
        "server.worker.pin",
        "Whether each thread stays on a core of its own (Linux).",
        SWITCH,
    ),
    key(
        "server.session.framing",
        "How messages are told apart on a byte stream.",
        "\"length\" (4 bytes, big endian), \"length:1|2|4|8\" with be or le (\"length:2le\"), \
         \"varint\", \"lines\", \"delimiter:HEX\" (\"delimiter:0d0a\"), \"raw\"",
    ),
    key(
        "server.session.envelope",
        "Whether messages carry the header for requests and heartbeats; peers must do the same.",
        SWITCH,
    ),
    key(
        "server.session.max_message",
        "Largest message in bytes.",
        POSITIVE,
    ),
    key(
        "server.session.idle_timeout",
        "Closes connections without traffic.",
        OPTIONAL,
    ),
    key(
        "server.session.close_timeout",
        "How long a closing connection may take to write what is queued.",
        DURATION,
    ),
    key(
        "server.session.request_timeout",
        "How long a request to a peer may take.",
        DURATION,
    ),
    key(
        "server.session.limits.hello_timeout",
        "Closes peers that do not send the greeting of the envelope in this time.",
        OPTIONAL,
    ),
    key(
        "server.session.limits.first_byte_timeout",
        "Closes plain peers that do not say anything in this time after they have connected.",
        OPTIONAL,
    ),
    key(
        "server.session.limits.slow_reader_timeout",
        "Closes peers that take less than outbox.low bytes in this time, while more wait.",
        OPTIONAL,
    ),
    key(
        "server.session.limits.max_age",
        "Ends connections of this age, in good order.",
        OPTIONAL,
    ),
    key(
        "server.session.limits.max_age_jitter",
        "How much of max_age is left out at random, so that not all end together.",
        "a number from 0.0 to 1.0",
    ),
    key(
        "server.session.limits.messages_per_second",
        "Messages that one connection may send per second, in the long run.",
        RATE,
    ),
    key(
        "server.session.limits.bytes_per_second",
        "Bytes that one connection may send per second, in the long run.",
        RATE,
    ),
    key(
        "server.session.limits.rate_burst",
        "For how long a connection may send as fast as it can after a silence.",
        DURATION,
    ),
    key(
        "server.session.limits.rate_exceeded",
        "What happens when a connection sends more: nothing is read for a while, or it is closed.",
        "\"wait\" or \"close\"",
    ),
    key(
        "server.session.outbox.high",
        "Bytes that may wait for one peer; then the outbox is full.",
        POSITIVE,
    ),
    key(
        "server.session.outbox.low",
        "Bytes at which a full outbox has room again.",
        "a number of bytes, at most outbox.high",
    ),
    key(
        "server.session.outbox.overflow",
        "What happens to a message that finds the outbox full.",
        "\"wait\", \"reject\", \"drop-newest\", \"drop-oldest\" or \"close\"",
    ),
    key(
        "server.session.heartbeat.interval",
        "Silence after which a peer is probed.",
        OPTIONAL,
    ),
    key(
        "server.session.heartbeat.missed",
        "Unanswered probes after which a peer is dead.",
        COUNT,
    ),
    optional(
        "server.session.pipeline.compress",
        "How messages that are sent are compressed. With this table peers need a pipeline, too.",
        "\"none\", \"lz4\", \"deflate\" or \"zstd\", with a level \"deflate:9\" or \"zstd:19\"",
        "\"none\"",
    ),
    optional(
        "server.session.pipeline.threshold",
        "Messages of fewer bytes are sent as they are.",
        BYTES,
        "512",
    ),
    optional(
        "server.session.pipeline.noise.pattern",
        "Encryption with the Noise protocol: one shared key, or a key pair for each.",
        "\"NNpsk0\", \"XX\" or \"IK\"",
        "\"NNpsk0\"",
    ),
    optional(
        "server.session.pipeline.noise.psk",
        "The file with the shared key of NNpsk0; `netsys noise-key` makes one.",
        KEY_FILE,
        "\"/etc/netsys/shared.key\"",
    ),
    optional(
        "server.session.pipeline.noise.key",
        "The file with our private key of XX and IK; `netsys noise-key` makes one.",
        KEY_FILE,
        "\"/etc/netsys/noise.key\"",
    ),
    optional(
        "server.session.pipeline.noise.peers",
        "The public keys of the peers to accept with XX and IK.",
        "a list of keys of 64 hexadecimal digits",
        "[]",
    ),
    optional(
        "server.session.pipeline.noise.danger_accept_any_peer",
        "DANGER: accept every peer with XX and IK, whoever it is.",
        SWITCH,
        "false",
    ),
    optional(
        "server.session.pipeline.noise.rekey_messages",
        "The sender takes another key after so many messages.",
        COUNT,
        "65536",
    ),
    optional(
        "server.session.pipeline.noise.rekey_bytes",
        "The sender takes another key after so many bytes.",
        POSITIVE,
        "1073741824",
    ),
    key(
        "server.socket.nodelay",
        "Send small segments at once (TCP_NODELAY).",
        SWITCH,
    ),
    key(
        "server.socket.keepalive",
        "TCP keepalive probes, timed by heartbeat.",
        SWITCH,
    ),
    unset(
        "server.socket.receive_buffer",
        "Receive buffer in bytes (SO_RCVBUF). Not set: the system's.",
        "262144",
    ),
    unset(
        "server.socket.send_buffer",
        "Send buffer in bytes (SO_SNDBUF). Not set: the system's.",
        "262144",
    ),
    key(
        "server.socket.unsent",
        "Bytes that the system takes before they can be sent (TCP_NOTSENT_LOWAT, Linux).",
        "a number of bytes; 0 is as many as the send buffer holds",
    ),
    key(
        "server.socket.backlog",
        "Connections that may wait to be accepted.",
        COUNT,
    ),
    key(
        "server.socket.dual_stack",
        "Whether an IPv6 wildcard address takes IPv4 too.",
        SWITCH,
    ),
    key(
        "server.tls.certificates",
        "Certificates (with their chains) and keys of addresses with TLS; clients get the one for the \
         name that they ask for, else the first.",
        "a list such as [{ certificate = \"/etc/tls/site.pem\", key = \"/etc/tls/site.key\" }]",
    ),
    key(
        "server.tls.client_auth",
        "Whether clients must have a certificate.",
        "\"off\", \"optional\" or \"required\"",
    ),
    key(
        "server.tls.client_ca",
        "The authorities of clients' certificates.",
        FILES,
    ),
    key(
        "server.tls.crl",
        "Lists of revoked client certificates.",
        FILES,
    ),
    key(
        "server.tls.alpn",
        "Application protocols, the preferred one first.",
        "a list of names, such as [\"chat/2\", \"chat/1\"]",
    ),
    key(
        "server.tls.min_version",
        "The oldest version of TLS.",
        "\"1.2\" or \"1.3\"",
    ),
    key(
        "server.tls.resumption",
        "Whether clients that come back may resume their session, where they show no certificates.",
        SWITCH,
    ),
    key(
        "server.tls.reload_interval",
        "How often it is looked, while connections come, whether the files have changed.",
        OPTIONAL,
    ),
    key(
        "server.websocket.subprotocols",
        "Subprotocols of WebSocket, the preferred one first.",
        "a list of names, such as [\"chat.v2\", \"chat.v1\"]",
    ),
    key(
        "server.websocket.origins",
        "Whose pages may connect: \"same\" is those of the host that is asked, \"*\" all. Programs without \
         an origin may anyway.",
        "a list such as [\"same\", \"https://example.org\"]",
    ),
    key(
        "server.websocket.max_header_bytes",
        "Largest head of a request in bytes.",
        "a number of bytes, at least 8192",
    ),
    key(
        "server.websocket.max_headers",
        "Fields in a head at most.",
        COUNT,
    ),
    optional(
        "server.websocket.deflate.level",
        "Compression with clients that have it: how hard. Without this table there is none.",
        "a number from 1 (fast) to 9 (small)",
        "6",
    ),
    optional(
        "server.websocket.deflate.threshold",
        "Messages smaller than this are sent as they are.",
        BYTES,
        "64",
    ),
    optional(
        "server.websocket.deflate.server_window_bits",
        "The window of our compression, as a power of two.",
        BITS,
        "15",
    ),
    optional(
        "server.websocket.deflate.client_window_bits",
        "The window of the clients' compression; below 15, those that cannot be told do without.",
        BITS,
        "15",
    ),
    optional(
        "server.websocket.deflate.server_context_takeover",
        "Whether our messages refer to earlier ones: smaller, for memory that stays.",
        SWITCH,
        "true",
    ),
    optional(
        "server.websocket.deflate.client_context_takeover",
        "Whether the clients' messages do.",
        SWITCH,
        "true",
    ),
    key(
        "server.protection.max_handshakes",
        "Handshakes that may go on at a time, in all.",
        RATE,
    ),
    key(
        "server.protection.max_connections_per_ip",
        "Connections of one IP address (of IPv6: of one /64) at most.",
        RATE,
    ),
    key(
        "server.protection.connections_per_second_per_ip",
        "New connections of one IP address per second, in the long run.",
        RATE,
    ),
    key(
        "server.protection.connection_burst_per_ip",
        "New connections of one IP address at once.",
        COUNT,
    ),
    key(
        "server.protection.exempt",
        "Networks without limits per IP address.",
        NETWORKS,
    ),
    key(
        "server.protection.allow",
        "Networks that may connect; an empty list is everybody. Also ?allow=… of one address.",
        NETWORKS,
    ),
    key(
        "server.protection.deny",
        "Networks that may not connect, allowed or not. Also ?deny=… of one address.",
        NETWORKS,
    ),
    key(
        "server.protection.proxies",
        "Proxies in front, which say in the PROXY protocol who the client is; where there are any, \
         nobody else may connect. Also ?proxies=… of one address.",
        NETWORKS,
    ),
    key(
        "server.http.messages",
        "The path of the message gateway of http:// and https://, where curl is a client.",
        "a path in quotes, such as \"/messages\", or \"off\"",
    ),
    key(
        "server.http.websocket",
        "The path on http:// and auto:// on which WebSockets begin, or \"*\" for every path.",
        "a path in quotes, such as \"/ws\", \"*\", or \"off\"",
    ),
    key(
        "server.http.grpc",
        "Whether gRPC is answered on http:// and auto://: sessions, health and reflection.",
        SWITCH,
    ),
    key(
        "server.http.compression",
        "Compresses answers as the client accepts it (gzip, brotli, zstd).",
        SWITCH,
    ),
    key(
        "server.http.max_body",
        "Largest body of an HTTP request in bytes; a message also has session.max_message.",
        BYTES,
    ),
    key(
        "server.http.max_header",
        "Largest head of an HTTP request in bytes.",
        "a number of bytes from 8192 to 1048576",
    ),
    key(
        "server.http.max_header_fields",
        "Header fields of an HTTP request at most.",
        "a whole number from 1 to 10000",
    ),
    key(
        "server.http.max_streams",
        "Requests that one HTTP/2 connection may have at once.",
        "a whole number from 1 to 10000",
    ),
    key(
        "server.http.header_timeout",
        "How long the head of an HTTP request may take.",
        DURATION,
    ),
    key(
        "server.http.body_timeout",
        "In each such time 1 KiB of a request's body must come for each second of it.",
        DURATION,
    ),
    key(
        "server.http.keep_alive",
        "Closes HTTP connections without a request.",
        DURATION,
    ),
];

/// What a key may be.
pub(super) fn allowed(path: &str) -> Option<&'static str> {
    KEYS.iter()
        .find(|key| key.path == path)
        .map(|key| key.allowed)
}

/// What an unknown key was probably meant to be: a name at the same place, or the path of a key
/// with this name elsewhere.
pub(super) fn suggest(path: &str) -> Option<String> {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let prefix = if parent.is_empty() {
        String::new()
    } else {
        format!("{parent}.")
    };
    let here = KEYS
        .iter()
        .filter_map(|key| key.path.strip_prefix(prefix.as_str()));
    let names = here.map(|rest| rest.split('.').next().unwrap_or(rest));
    let near = names
        .map(|known| (strsim::damerau_levenshtein(known, name), known))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4);
    if let Some((_, known)) = near {
        return Some(known.to_owned());
    }
    // the name of a key, or of the table around it
    let elsewhere = KEYS
        .iter()
        .filter(|key| key.path.split('.').rev().take(2).any(|part| part == name));
    let full = elsewhere.map(|key| {
        let end = key.path.rfind(name).unwrap_or(0) + name.len();
        key.path.get(..end).unwrap_or(key.path)
    });
    full.min_by_key(|path| path.len()).map(str::to_owned)
}

/// The settings as a file that [`load`](super::file::load) reads back, every key explained.
///
/// # Errors
/// A value that TOML cannot hold.
pub(super) fn print(settings: &Settings) -> Result<String> {
    let values = Table::try_from(settings)
        .map_err(|error| Failure::usage(format_args!("the settings do not fit TOML: {error}")))?;
    let mut out = String::from("# Settings of `netsys serve --config FILE`.\n");
    let mut table = "";
    for key in KEYS {
        let (parent, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if parent != table {
            table = parent;
            // an empty table would mean something where there is none
            let off = if get(&values, parent).is_some() || parent.is_empty() {
                ""
            } else {
                "# "
            };
            let _ = write!(out, "\n{off}[{parent}]\n");
        }
        let _ = writeln!(out, "# {} Allowed: {}.", key.what, key.allowed);
        let value = get(&values, key.path).map(Value::to_string);
        let _ = match (value, key.unset) {
            (Some(value), _) => writeln!(out, "{name} = {value}"),
            (None, Some(shown)) => writeln!(out, "# {name} = {shown}"),
            (None, None) => Ok(()),
        };
    }
    Ok(out)
}

/// The value at a path.
fn get<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        None => table.get(path),
        Some((first, rest)) => get(table.get(first)?.as_table()?, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use network_system::config::{Deflate, Noise, Pipeline};

    fn paths(table: &Table, prefix: &str, found: &mut Vec<String>) {
        for (name, value) in table {
            match value {
                Value::Table(inner) => paths(inner, &format!("{prefix}{name}."), found),
                _ => found.push(format!("{prefix}{name}")),
            }
        }
    }

    /// A setting that the library gains must be explained here.
    #[test]
    fn the_table_has_every_setting_and_no_other() {
        let mut settings = Settings::default();
        settings.server.socket.receive_buffer = Some(1);
        settings.server.socket.send_buffer = Some(1);
        let noise = Noise {
            psk: Some("psk".into()),
            ..Noise::xx("key")
        };
        settings.server.session.pipeline = Some(Pipeline::new().noise(noise));
        settings.server.websocket.deflate = Some(Deflate::default());
        let mut found = Vec::new();
        paths(&Table::try_from(&settings).unwrap(), "", &mut found);
        found.sort();
        let mut known: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
        known.sort_unstable();
        assert_eq!(found, known);
    }

    #[test]
    fn suggestions_are_near_or_at_the_right_place() {
        for (wrong, meant) in [
            ("server.session.max_mesage", "max_message"),
            ("sevrer", "server"),
            ("server.sessions", "session"),
            ("workers", "server.workers"),
            ("server.max_message", "server.session.max_message"),
            ("outbox", "server.session.outbox"),
            ("server.session.outbox.hihg", "high"),
        ] {
            assert_eq!(suggest(wrong).as_deref(), Some(meant), "{wrong}");
        }
        assert_eq!(suggest("server.colour"), None);
    }
}
