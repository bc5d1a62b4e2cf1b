//! `netsys connect` in pipes: what is sent and printed, when it ends, and with which code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use common::{Running, Server, connect, ended, frame, netsys, read_frame};

/// A server of the test's own: does `work` with its only connection.
fn peer<T: Send + 'static>(
    work: impl FnOnce(std::net::TcpStream) -> T + Send + 'static,
) -> (String, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    (
        url,
        thread::spawn(move || work(listener.accept().unwrap().0)),
    )
}

#[test]
fn lines_go_out_and_come_back_without_their_ends() {
    let server = Server::start(&[]);
    let (out, _) = ended(
        &server.connect(&["--json"], b"one\r\n\nlast without an end"),
        0,
    );
    let want = [
        r#"{"n":1,"bytes":3,"text":"one"}"#,
        r#"{"n":2,"bytes":0,"text":""}"#,
        r#"{"n":3,"bytes":19,"text":"last without an end"}"#,
    ];
    assert_eq!(out.lines().collect::<Vec<_>>(), want);
    let (out, _) = ended(&server.connect(&[], b""), 0);
    assert_eq!(out, "");
}

#[test]
fn many_lines_pass_through_a_full_outbox() {
    let server = Server::start(&[]);
    let mut input = String::new();
    for n in 0..50_000 {
        input.push_str(&format!(
            "line {n} of many, to fill every buffer on the way\n"
        ));
    }
    let (out, _) = ended(&server.connect(&[], input.as_bytes()), 0);
    assert!(
        out == input,
        "{} bytes of {} came back",
        out.len(),
        input.len()
    );
}

#[test]
fn hexadecimal_shows_every_byte() {
    let server = Server::start(&[]);
    let (out, _) = ended(&server.connect(&["--hex"], b"0123456789abcdefX\x01\n"), 0);
    assert_eq!(
        out,
        "message 1, 18 bytes\n\
         00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|\n\
         00000010  58 01                                             |X.|\n"
    );
}

#[test]
fn files_are_messages_and_come_back_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big.bin");
    let big: Vec<u8> = (0..500_000_u32)
        .flat_map(|n| [n as u8, (n >> 8) as u8])
        .collect();
    std::fs::write(&path, &big).unwrap();
    let path = path.to_str().unwrap();
    let server = Server::start(&[]);
    let output = server.connect(&["--file", path, "--count", "1", "-n"], b"");
    assert!(
        output.status.success() && output.stdout == big,
        "{} bytes",
        output.stdout.len()
    );

    let both = ["--file", path, "--file", "-", "--json", "--count", "2"];
    let (out, _) = ended(&server.connect(&both, b"all\nof the input"), 0);
    assert!(out.starts_with("{\"n\":1,\"bytes\":1000000,\"hex\":\"000001000200"));
    assert!(out.ends_with("{\"n\":2,\"bytes\":16,\"text\":\"all\\nof the input\"}\n"));

    let (_, err) = ended(&server.connect(&["--file", "/no/such/file"], b""), 1);
    assert!(err.contains("could not read /no/such/file: "), "{err}");
    let small = format!("{}?max_message=100", server.url);
    let (_, err) = ended(&connect(&["--file", path, &small], b""), 1);
    assert!(err.contains("100 bytes") && err.contains("[-642]"), "{err}");
}

#[test]
fn count_ends_it_with_success() {
    let server = Server::start(&[]);
    let mut command = netsys();
    command.args(["connect", "--timeout", "60s", "--count", "2", &server.url]);
    let mut client = Running::start(command);
    // the input stays open
    client.say("one\n");
    assert_eq!(client.line(), "one");
    client.say("two\n");
    assert_eq!(client.line(), "two");
    let (status, rest, _) = client.end();
    assert_eq!((status.code(), rest.len()), (Some(0), 0));
}

#[test]
fn a_deadline_exits_with_4_and_tells_how_far_it_came() {
    let server = Server::start(&[]);
    let arguments = ["--count", "3", "--timeout", "300ms"];
    let (out, err) = ended(&server.connect(&arguments, b"one\n"), 4);
    assert_eq!(out, "one\n");
    assert_eq!(
        err,
        "error: not done within 300ms: 1 sent, 1 of 3 received [-4]\n"
    );
}

#[test]
fn no_connection_exits_with_3() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (_, err) = ended(&connect(&[&format!("tcp://{free}")], b""), 3);
    assert_eq!(
        err,
        format!(
            "error: could not connect to tcp://{free}: connection refused \
             (check that a server listens there) [-601]\n"
        )
    );
    #[cfg(unix)]
    {
        let (_, err) = ended(&connect(&["unix:///no/such.sock"], b""), 3);
        assert!(err.contains("unix:///no/such.sock: not found"), "{err}");
    }
    let request = ["--request", &format!("tcp://{free}")];
    let (_, err) = ended(&connect(&request, b"ping\n"), 3);
    assert!(err.contains("connection refused"), "{err}");
}

#[test]
fn wrong_addresses_exit_with_2_and_are_underlined() {
    let (_, err) = ended(&connect(&["tcp://localhost:99999"], b""), 2);
    let lines: Vec<&str> = err.lines().collect();
    assert!(
        lines[0].starts_with("error: ") && lines[0].ends_with("[-1]"),
        "{err}"
    );
    assert_eq!(
        lines[1..],
        ["  tcp://localhost:99999", "                  ^^^^^"]
    );
    for (url, wanted) in [
        ("localhost:80", "a scheme is missing"),
        ("tcp://localhost", "a port is missing"),
        ("ftp://localhost:80", "known are tcp://"),
        ("http://localhost:80", "HTTP has no message connection"),
        ("tcp://localhost:80?framing=zip", "varint, lines"),
        ("tcp://localhost:80?colour=red", "known are framing"),
    ] {
        let (_, err) = ended(&connect(&[url], b""), 2);
        assert!(err.contains(wanted), "{url}: {err}");
    }
    let arguments = ["--count", "0", "tcp://localhost:80"];
    let (_, err) = ended(&connect(&arguments, b""), 2);
    assert!(err.contains("--count"), "{err}");
}

#[test]
fn a_peer_that_closes_too_early_is_an_error() {
    // before the end of the input
    let (url, served) = peer(|mut io| {
        assert_eq!(read_frame(&mut io), b"one");
        io.write_all(&frame(b"bye")).unwrap();
    });
    let mut command = netsys();
    command.args(["connect", "--timeout", "60s", &url]);
    let mut client = Running::start(command);
    client.say("one\n");
    assert_eq!(client.line(), "bye");
    let (status, _, err) = client.end();
    assert_eq!(status.code(), Some(1));
    assert_eq!(
        err,
        "error: the peer closed the connection: 1 sent, 1 received [-603]\n"
    );
    served.join().unwrap();

    // before as many messages as were wanted
    let (url, served) = peer(|mut io| read_frame(&mut io));
    let (_, err) = ended(&connect(&["--count", "2", &url], b"one\n"), 1);
    assert!(err.contains("1 sent, 0 of 2 received [-603]"), "{err}");
    assert_eq!(served.join().unwrap(), b"one");
}

#[test]
fn a_message_cut_short_is_an_error() {
    let (url, served) = peer(|mut io| {
        let _ = read_frame(&mut io);
        io.write_all(&frame(b"whole")).unwrap();
        io.write_all(&frame(b"cut short")[..8]).unwrap();
    });
    let (out, err) = ended(&connect(&[&url], b"one\n"), 1);
    assert_eq!(out, "whole\n");
    assert!(err.contains("ended in the middle of a message"), "{err}");
    served.join().unwrap();
}

#[test]
fn at_the_end_of_the_input_our_side_closes_and_the_rest_is_received() {
    let (url, served) = peer(|mut io| {
        let mut all = Vec::new();
        // the end comes only because the client closes its side
        io.read_to_end(&mut all).unwrap();
        io.write_all(&frame(b"after the end")).unwrap();
        all
    });
    let (out, _) = ended(&connect(&["--wait", "forever", &url], b"one\n"), 0);
    assert_eq!(out, "after the end\n");
    assert_eq!(served.join().unwrap(), frame(b"one"));
}

#[test]
fn a_peer_that_stays_is_left_after_a_silence() {
    for keep_open in [false, true] {
        let (url, served) = peer(move |mut io| {
            let message = read_frame(&mut io);
            io.write_all(&frame(b"an answer")).unwrap();
            let mut rest = Vec::new();
            io.read_to_end(&mut rest).unwrap();
            (message, rest)
        });
        let mut arguments = vec!["--wait", "200ms", &url];
        if keep_open {
            arguments.push("--keep-open");
        }
        let (out, _) = ended(&connect(&arguments, b"one\n"), 0);
        assert_eq!(out, "an answer\n");
        assert_eq!(served.join().unwrap(), (b"one".to_vec(), Vec::new()));
    }
}

#[test]
fn whoever_stops_to_read_our_output_ends_it_quietly() {
    let server = Server::start(&[]);
    let line = "a line that comes back, longer than nothing, many times\n";
    let mut command = netsys();
    command.args(["connect", "--timeout", "60s", "--keep-open", &server.url]);
    command.stdin(std::process::Stdio::piped());
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let mut input = child.stdin.take().unwrap();
    while input.write_all(line.as_bytes()).is_ok() {}
    let (_, err) = ended(&child.wait_with_output().unwrap(), 0);
    assert_eq!(err, "");
}

#[test]
fn every_framing_of_the_url_is_spoken() {
    for framing in [
        "length:2le",
        "varint",
        "lines",
        "delimiter:0d0a",
        "length:8",
    ] {
        let listen = format!("tcp://127.0.0.1:0?framing={framing}");
        let server = Server::start_with(&["--listen", &listen]);
        assert!(server.url.ends_with(&format!("?framing={framing}")));
        let (out, _) = ended(&server.connect(&[], b"one\ntwo\n"), 0);
        assert_eq!(out, "one\ntwo\n", "{framing}");
    }
}

#[test]
fn requests_need_a_server_that_understands_them() {
    let server = Server::start(&[]);
    // it sends the request back, so each side asks the other
    let (_, err) = ended(&server.connect(&["--request"], b"ping\n"), 1);
    assert!(err.contains("requests are not served here"), "{err}");
    let off = format!("{}?envelope=false", server.url);
    let (_, err) = ended(&connect(&["--request", &off], b"ping\n"), 1);
    assert!(err.contains("turn on `envelope`"), "{err}");
    let early = Server::start_with(&["--listen", "tcp://127.0.0.1:0?envelope=true"]);
    let (out, err) = ended(&early.connect(&["--request", "--count", "2"], b"ping\n"), 1);
    assert_eq!(out, "ping\n");
    assert!(
        err.contains("the input ended early: 1 sent, 1 of 2 received"),
        "{err}"
    );
}

/// A peer that is slow, and does not close: no answer is no success.
#[test]
fn an_answer_that_does_not_come_in_time_is_an_error() {
    let (url, served) = peer(|mut io| {
        let message = read_frame(&mut io);
        // until the client is gone, which closes its side first and then all of it
        let _ = io.read_to_end(&mut Vec::new());
        (io, message)
    });
    let (out, err) = ended(&connect(&["--wait", "200ms", &url], b"one\n"), 4);
    assert_eq!(out, "");
    assert_eq!(
        err,
        "error: nothing came within 200ms: 1 sent, 0 received (--wait waits longer) [-4]\n"
    );
    let (_still_open, message) = served.join().unwrap();
    assert_eq!(message, b"one");

    // who has nothing to say expects nothing
    let (url, served) = peer(|io| io);
    let (out, _) = ended(&connect(&["--wait", "200ms", &url], b""), 0);
    assert_eq!(out, "");
    drop(served.join().unwrap());
}
