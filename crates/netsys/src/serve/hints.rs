//! How to try a server that has just started: lines to paste into another terminal.

use std::path::Path;

use network_system::Address;
use network_system::config::{LinkConfig, SessionConfig};

use crate::address;
use crate::config::Settings;
use crate::modes::Mode;

/// The lines, for the first address.
pub fn how_to_try(settings: &Settings, listening: &[Address]) -> String {
    let server = &settings.server;
    let first = listening.first().map(Address::as_str).unwrap_or_default();
    let Ok((address, link)) = address::parse(first, &server.session, &server.socket) else {
        return String::new();
    };
    let proxies = match address.query("proxies") {
        Some(_) => &link.protection.proxies,
        None => &server.protection.proxies,
    };
    if !proxies.is_empty() && !matches!(address.scheme(), "unix" | "memory") {
        return format!("only these proxies may connect: {proxies}\nCtrl-C ends the server.\n");
    }
    if address.scheme() != "auto"
        && let Some(line) = curl(settings, &address)
    {
        return format!("try it from another terminal:\n  {line}\nCtrl-C ends the server.\n");
    }
    let mut text = String::from("try it from another terminal:\n");
    let url = quoted(&reachable(&address, &link));
    let trust = trust(settings, link.is_secure(&address));
    text += &format!("  {} connect {trust}{url}\n", this_program());
    if address.scheme() == "auto"
        && let Some(line) = curl(settings, &address)
    {
        text +=
            &format!("or with curl, a browser, WebSocket or gRPC on the same port:\n  {line}\n");
    }
    let other = without_netsys(settings.mode, &address, &link.session);
    if let Some(other) = other.filter(|_| !link.tls) {
        text += &format!("or without netsys:\n  {other}\n");
    }
    text + "Ctrl-C ends the server.\n"
}

/// The line for an address with HTTP.
fn curl(settings: &Settings, address: &Address) -> Option<String> {
    let trust = match (address.scheme(), trust(settings, true)) {
        ("http" | "auto", _) => "",
        ("https", "--ca CA.pem ") => "--cacert CA.pem ",
        ("https", _) => "--insecure ",
        _ => return None,
    };
    let (scheme, host, port) = (address.scheme(), host(address), address.port()?);
    let scheme = if scheme == "auto" { "http" } else { scheme };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    let url = |path: &str| quoted(&format!("{scheme}://{host}:{port}{path}"));
    Some(match &settings.server.http.messages {
        Some(path) => format!("curl {trust}-d hello {}", url(path)),
        None => format!("curl {trust}{}", url("/")),
    })
}

/// The options with which a client trusts this server.
fn trust(settings: &Settings, secure: bool) -> &'static str {
    let certificates = &settings.server.tls.certificates;
    let made_now = certificates.iter().all(|pair| pair.key.path().is_none());
    match (secure, made_now) {
        (false, _) => "",
        (true, true) => "--danger-trust-any-certificate ",
        (true, false) => "--ca CA.pem ",
    }
}

/// The host to connect to where the server listens on every address.
fn host(address: &Address) -> String {
    match address.host() {
        "" | "0.0.0.0" => "127.0.0.1".to_owned(),
        "::" => "::1".to_owned(),
        host => host.to_owned(),
    }
}

/// The address as a client of this machine must give it, with the settings that both sides need.
fn reachable(address: &Address, link: &LinkConfig) -> String {
    let scheme = match (address.scheme(), link.tls) {
        ("auto", true) => "tls",
        ("auto", false) => "tcp",
        (scheme, _) => scheme,
    };
    let place = match address.port() {
        None => format!("{scheme}://{}{}", address.host(), address.path()),
        Some(port) => {
            let host = host(address);
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host
            };
            format!("{scheme}://{host}:{port}{}", address.path())
        }
    };
    let (session, usual) = (&link.session, SessionConfig::default());
    let mut query = Vec::new();
    let framing = session.framing.to_string();
    if framing != usual.framing.to_string() {
        query.push(format!("framing={framing}"));
    }
    if session.envelope != usual.envelope {
        query.push(format!("envelope={}", session.envelope));
    }
    if session.max_message != usual.max_message {
        query.push(format!("max_message={}", session.max_message));
    }
    if let Some(pipeline) = &session.pipeline {
        query.push(format!("compress={}", pipeline.compress));
    }
    if link.tls && !matches!(address.scheme(), "tls" | "wss") {
        query.push("tls=true".to_owned());
    }
    if link.over_websocket && !matches!(address.scheme(), "ws" | "wss") {
        query.push("websocket=true".to_owned());
    }
    match query.is_empty() {
        true => place,
        false => format!("{place}?{}", query.join("&")),
    }
}

/// What to type in place of `netsys`: the same way that this process was started.
fn this_program() -> String {
    // cargo tells the programs that it runs
    if std::env::var_os("CARGO_MANIFEST_DIR").is_some() && std::env::var_os("CARGO").is_some() {
        let release = if cfg!(debug_assertions) {
            ""
        } else {
            " --release"
        };
        return format!("cargo run{release} --");
    }
    let name = std::env::args().next().unwrap_or_default();
    match Path::new(&name).components().count() {
        // found by the shell, by its name
        0 | 1 => "netsys".to_owned(),
        _ => quoted(&name),
    }
}

/// A line with nothing of ours on the other side.
fn without_netsys(mode: Mode, address: &Address, session: &SessionConfig) -> Option<String> {
    let framing = session.framing.to_string();
    match (address.scheme(), address.port(), framing.as_str()) {
        _ if session.envelope || session.pipeline.is_some() => None,
        _ if address.query("websocket") == Some("true") => None,
        ("ws", Some(port), _) => Some(format!(
            "python3 -m websockets ws://{}:{port}{}",
            host(address),
            address.path()
        )),
        ("tcp", Some(port), "length") => Some(python(mode, &host(address), port)),
        ("tls", Some(port), "lines") => Some(format!(
            "openssl s_client -quiet -connect {}:{port}",
            host(address)
        )),
        ("tcp", Some(port), "lines") => Some(format!("nc {} {port}", host(address))),
        ("unix", _, "lines") => Some(format!("nc -U {}", quoted(address.path()))),
        _ => None,
    }
}

/// One message in the default framing: four bytes of length, big endian, then the text.
fn python(mode: Mode, host: &str, port: u16) -> String {
    let send = format!(
        "import socket, struct; s = socket.create_connection((\"{host}\", {port})); \
         s.sendall(struct.pack(\">I\", 5) + b\"hello\")"
    );
    let receive = match mode {
        Mode::Discard => "",
        _ => "; f = s.makefile(\"rb\"); print(f.read(*struct.unpack(\">I\", f.read(4))))",
    };
    format!("python3 -c '{send}{receive}'")
}

/// A word for the shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+=".contains(c);
    match text.chars().all(plain) && !text.is_empty() {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use network_system::config::SocketOptions;

    use super::*;

    fn url(listen: &str, change: impl FnOnce(&mut SessionConfig)) -> String {
        let mut session = SessionConfig::default();
        change(&mut session);
        let (address, link) = address::parse(listen, &session, &SocketOptions::default()).unwrap();
        reachable(&address, &link)
    }

    #[test]
    fn the_address_is_reachable_and_both_sides_agree() {
        for (listen, want) in [
            ("tcp://0.0.0.0:80", "tcp://127.0.0.1:80"),
            ("tcp://:80", "tcp://127.0.0.1:80"),
            ("tcp://[::]:80", "tcp://[::1]:80"),
            (
                "tcp://[::1]:80?framing=lines",
                "tcp://[::1]:80?framing=lines",
            ),
            (
                "unix:///tmp/a.sock?envelope=true",
                "unix:///tmp/a.sock?envelope=true",
            ),
            ("tcp://h:80?framing=length", "tcp://h:80"),
        ] {
            assert_eq!(url(listen, |_| ()), want);
        }
        let by_file = |session: &mut SessionConfig| {
            session.framing = "varint".parse().unwrap();
            session.max_message = 100;
        };
        assert_eq!(
            url("tcp://h:80", by_file),
            "tcp://h:80?framing=varint&max_message=100"
        );
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_read_more_into_them() {
        assert_eq!(quoted("tcp://127.0.0.1:80"), "tcp://127.0.0.1:80");
        assert_eq!(
            quoted("tcp://h:80?framing=raw&a=b"),
            "'tcp://h:80?framing=raw&a=b'"
        );
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
