//! `netsys serve`, from the outside: its modes, its addresses, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use common::{Running, Server, connect, ended, frame, netsys, read_frame, run};
use serde_json::Value;

#[test]
fn echo_sends_messages_back() {
    let server = Server::start(&[]);
    assert_eq!(server.listening["mode"], "echo");
    assert_eq!(server.listening["workers"], 1);
    let (out, err) = ended(&server.connect(&[], b"one\n\ntwo \xc3\xa9\n"), 0);
    assert_eq!((out.as_str(), err.as_str()), ("one\n\ntwo é\n", ""));
}

#[test]
fn upper_sends_them_back_in_upper_case() {
    let server = Server::start(&["--mode", "upper", "--workers", "2"]);
    let (out, _) = ended(&server.connect(&[], b"hello\nstra\xc3\x9fe\n"), 0);
    assert_eq!(out, "HELLO\nSTRASSE\n");
}

#[test]
fn refusals_are_told_by_their_reason() {
    let listen = "tcp://127.0.0.1:0?deny=127.0.0.0/8";
    let mut server = Server::start_with(&["--listen", listen, "--stats-interval", "20ms"]);
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let read = stream.read(&mut [0]);
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    let event = server.event(|event| event["connections_refused"]["denied"] == 1);
    assert_eq!(event["connections_total"], 0);
}

#[test]
fn discard_reads_and_says_nothing() {
    let mut server = Server::start(&["--mode", "discard", "--stats-interval", "20ms"]);
    let (out, _) = ended(&server.connect(&[], b"one\ntwo\n"), 0);
    assert_eq!(out, "");
    let event = server.event(|event| event["connections_ended"]["peer"] == 1);
    assert_eq!(
        (&event["messages_in"], &event["messages_out"]),
        (&2.into(), &0.into())
    );
}

#[test]
fn broadcast_reaches_every_connection() {
    let arguments = [
        "--mode",
        "broadcast",
        "--workers",
        "2",
        "--stats-interval",
        "20ms",
    ];
    let mut server = Server::start(&arguments);
    let client = |count| {
        let mut command = netsys();
        command.args(["connect", "--timeout", "60s", "--count", count, &server.url]);
        Running::start(command)
    };
    let mut anna = client("2");
    let mut ben = client("2");
    server.event(|event| event["connections_active"] == 2);
    anna.say("from anna\n");
    assert_eq!(
        (anna.line(), ben.line()),
        ("from anna".to_owned(), "from anna".to_owned())
    );
    ben.say("from ben\n");
    for client in [anna, ben] {
        let (status, rest, _) = client.end();
        assert!(status.success());
        assert_eq!(rest, ["from ben"]);
    }
}

#[test]
fn requests_are_answered_in_every_mode() {
    for (mode, reply) in [
        ("echo", "ping"),
        ("upper", "PING"),
        ("discard", ""),
        ("broadcast", "1"),
    ] {
        let listen = [
            "--listen",
            "tcp://127.0.0.1:0?envelope=true",
            "--mode",
            mode,
        ];
        let server = Server::start_with(&listen);
        let output = server.connect(&["--request", "--count", "2"], b"ping\nping\n");
        let (out, _) = ended(&output, 0);
        let lines: Vec<&str> = out.lines().collect();
        // a broadcast comes as a message, too
        let replies = lines
            .iter()
            .filter(|line| mode != "broadcast" || **line != "ping");
        assert_eq!(replies.collect::<Vec<_>>(), [&reply, &reply], "{mode}");
    }
}

#[test]
fn several_addresses_and_framings_at_once() {
    let lines = "tcp://127.0.0.1:0?framing=lines";
    let server = Server::start(&["--listen", lines]);
    let addresses = server.listening["addresses"].as_array().unwrap();
    assert_eq!(addresses.len(), 2);
    for address in addresses {
        let (out, _) = ended(&connect(&[address.as_str().unwrap()], b"hello\n"), 0);
        assert_eq!(out, "hello\n", "{address}");
    }
}

#[cfg(unix)]
#[test]
fn a_unix_socket_serves_and_is_gone_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netsys.sock");
    let url = format!("unix://{}", path.display());
    let mut server = Server::start_with(&["--listen", &url]);
    let (out, _) = ended(&server.connect(&[], b"hello\n"), 0);
    assert_eq!(out, "hello\n");
    assert!(path.exists());
    server.process.terminate();
    server.event(|event| event["event"] == "drained");
    assert!(server.process.end().0.success());
    assert!(!path.exists());
}

#[test]
fn a_port_in_use_is_named_and_exits_with_3() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", taken.local_addr().unwrap());
    for workers in ["1", "2"] {
        let mut command = netsys();
        command.args(["serve", "--listen", &url, "--workers", workers]);
        let (out, err) = ended(&run(command, b""), 3);
        assert_eq!(out, "");
        assert_eq!(err.lines().count(), 1, "{err}");
        assert!(
            err.starts_with(&format!("error: could not listen on {url}: ")),
            "{err}"
        );
        assert!(err.contains("in use") && err.ends_with("[-662]\n"), "{err}");
    }
}

#[test]
fn wrong_arguments_exit_with_2_and_say_what_is_allowed() {
    for (arguments, wanted) in [
        (&["--mode", "shout"][..], "echo, discard, broadcast, upper"),
        (&["--workers", "2000"], "workers must be at most 1024"),
        (&["--workers", "two"], "invalid digit"),
        (&["--listen", "tcp://127.0.0.1"], "a port is missing"),
        (&["--listen", "ftp://127.0.0.1:1"], "known are tcp://"),
        (&["--listen", "tcp://h:1?framing=zip"], "varint, lines"),
        (&["--stats-interval", "5"], "10s"),
        (&["--log", "wran"], "off, error, warn"),
        (&["--quiet", "--json"], "cannot be used with"),
    ] {
        let mut command = netsys();
        command.arg("serve").args(arguments);
        let (_, err) = ended(&run(command, b""), 2);
        assert!(err.contains(wanted), "{arguments:?}: {err}");
    }
}

#[cfg(unix)] // for its shell
#[test]
fn without_json_it_says_how_to_try_it_and_that_is_true() {
    for (query, program) in [("", "python3 -c "), ("?framing=lines", "nc ")] {
        let mut command = netsys();
        command.args(["serve", "--listen", &format!("tcp://127.0.0.1:0{query}")]);
        // as from a shell, not from cargo
        command.env_remove("CARGO").env_remove("CARGO_MANIFEST_DIR");
        let mut server = Running::start(command);
        assert!(server.line().starts_with("listening on tcp://127.0.0.1:"));
        let mut lines = std::iter::from_fn(|| Some(server.line()));
        let connect = lines.find(|line| line.contains(" connect ")).unwrap();
        let other = lines.find(|line| line.contains(program)).unwrap();
        let shell = |line: &str| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", line]);
            let (out, _) = ended(&run(command, b"hello\n"), 0);
            out
        };
        assert_eq!(shell(&connect), "hello\n", "{connect}");
        if program.starts_with("python3") {
            assert_eq!(shell(&other), "b'hello'\n", "{other}");
        }
    }
}

#[test]
fn quiet_means_quiet() {
    // quiet about the port, too, so one is taken beforehand
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut command = netsys();
    command.args(["serve", "--quiet", "--log", "info"]);
    command.args(["--listen", &format!("tcp://127.0.0.1:{port}")]);
    command.args(["--stats-interval", "10ms"]);
    let server = Running::start(command);
    let mut client = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(client) => break client,
            Err(_) => std::thread::yield_now(),
        }
    };
    client.write_all(&frame(b"hello")).unwrap();
    assert_eq!(read_frame(&mut client), b"hello");
    #[cfg(unix)]
    {
        server.terminate();
        drop(client);
        let (status, out, err) = server.end();
        assert!(status.success());
        assert!(out.is_empty(), "{out:?}");
        assert!(err.contains("listening") && err.contains("INFO"), "{err}");
    }
    #[cfg(not(unix))]
    drop(server);
}

#[cfg(unix)]
mod signals {
    use super::*;

    #[test]
    fn sigterm_lets_connections_finish_and_reports() {
        let mut server = Server::start(&["--stats-interval", "20ms"]);
        let mut clients: Vec<TcpStream> = (0..3)
            .map(|_| TcpStream::connect(("127.0.0.1", server.port())).unwrap())
            .collect();
        for client in &mut clients {
            client.write_all(&frame(b"hello")).unwrap();
            assert_eq!(read_frame(client), b"hello");
        }
        server.event(|event| event["messages_out"] == 3);
        server.process.terminate();
        let draining = server.event(|event| event["event"] == "draining");
        assert_eq!(
            (&draining["sessions"], &draining["deadline_seconds"]),
            (&3.into(), &10.0.into())
        );
        // each is told that no more comes, and answers
        for client in &mut clients {
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        drop(clients);
        let (status, rest, err) = server.process.end();
        assert_eq!((status.code(), err.as_str()), (Some(0), ""));
        let report: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
        assert_eq!(report["event"], "drained");
        assert_eq!(
            (&report["sessions"], &report["drained"]),
            (&3.into(), &3.into())
        );
        assert_eq!(
            (&report["cut"], &report["messages_dropped"]),
            (&0.into(), &0.into())
        );
        assert_eq!(report["statistics"]["messages_out"], 3);
        // the totals are those of the end
        assert_eq!(report["statistics"]["connections_active"], 0);
        assert_eq!(report["statistics"]["connections_ended"]["shutdown"], 3);
    }

    #[test]
    fn the_report_for_people_says_the_same() {
        let mut command = netsys();
        command.args(["serve", "--listen", "tcp://127.0.0.1:0"]);
        let mut server = Running::start(command);
        let url = server.line().rsplit(' ').next().unwrap().to_owned();
        while !server.line().starts_with("Ctrl-C") {}
        ended(&connect(&[&url], b"one\ntwo\n"), 0);
        server.terminate();
        let (status, rest, err) = server.end();
        assert_eq!((status.code(), err.as_str()), (Some(0), ""));
        let report = rest.join("\n");
        assert!(
            report.contains("finishing 0 connections, for 10 s at most"),
            "{report}"
        );
        assert!(
            report.contains(": 0 connections finished, 0 cut off, 0 messages dropped"),
            "{report}"
        );
        assert!(
            report.contains("1 connection (peer 1), 2 messages in (14 B), 2 out (14 B)"),
            "{report}"
        );
    }

    /// A server with a peer that sends and never reads, once it cannot write any more.
    fn with_a_stuck_peer(arguments: &[&str]) -> (Server, std::thread::JoinHandle<()>) {
        let mut all = vec!["--stats-interval", "20ms"];
        all.extend(arguments);
        let mut server = Server::start(&all);
        let mut client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        // ends when the server resets the connection
        let stuck = std::thread::spawn(move || {
            let message = frame(&vec![7; 60_000]);
            while client.write_all(&message).is_ok() {}
        });
        server.event(|event| event["queued_bytes"].as_u64().unwrap_or(0) > 900_000);
        (server, stuck)
    }

    #[test]
    fn a_peer_that_never_reads_is_cut_off_at_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("netsys.toml");
        std::fs::write(&config, "[server]\nshutdown_timeout = \"100ms\"\n").unwrap();
        let (mut server, stuck) = with_a_stuck_peer(&["--config", config.to_str().unwrap()]);
        server.process.terminate();
        let report = server.event(|event| event["event"] == "drained");
        assert_eq!((&report["drained"], &report["cut"]), (&0.into(), &1.into()));
        assert!(report["messages_dropped"].as_u64().unwrap() > 0, "{report}");
        assert_eq!(server.process.end().0.code(), Some(0));
        stuck.join().unwrap();
    }

    #[test]
    fn a_second_signal_ends_at_once() {
        let (mut server, stuck) = with_a_stuck_peer(&[]);
        server.process.terminate();
        server.event(|event| event["event"] == "draining");
        let asked = std::time::Instant::now();
        server.process.terminate();
        let (status, rest, _) = server.process.end();
        assert_eq!(status.code(), Some(130));
        assert!(
            rest.iter().all(|line| !line.contains("drained")),
            "{rest:?}"
        );
        // sooner than the connection's own end could come: close_timeout is 5 s
        assert!(asked.elapsed() < std::time::Duration::from_secs(4));
        stuck.join().unwrap();
    }
}

/// Keys from files, made by `noise-key`; who has another key gets nothing.
#[test]
fn noise_keys_are_made_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for name in ["shared", "other"] {
        let mut command = netsys();
        command.args(["noise-key", &path(name)]);
        let (public, _) = ended(&run(command, b""), 0);
        assert_eq!(public.trim().len(), 64, "{public}");
        assert!(
            !std::fs::read_to_string(path(name))
                .unwrap()
                .contains(public.trim())
        );
        // a key is never replaced
        let mut again = netsys();
        again.args(["noise-key", &path(name)]);
        assert!(!run(again, b"").status.success());
    }
    let server = Server::start(&["--compress", "zstd", "--noise-psk-file", &path("shared")]);
    for (key, works) in [("shared", true), ("other", false)] {
        let mut command = netsys();
        let url = format!("tcp://127.0.0.1:{}", server.port());
        command.args([
            "connect",
            "--noise-psk-file",
            &path(key),
            "--count",
            "1",
            &url,
        ]);
        let output = run(command, b"hello\n");
        assert_eq!(output.status.success(), works, "{key}: {output:?}");
        assert_eq!(output.stdout == b"hello\n", works, "{key}: {output:?}");
    }
}
