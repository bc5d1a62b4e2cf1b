//! WebSocket from the command line: `netsys serve`, `connect` and `bench` with `ws://` and `wss://`, and
//! Python's opinion of it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::path::Path;

use common::{Server, connect, ended, netsys, run};

fn serve(listen: &str, more: &[&str]) -> Server {
    Server::start_with(&[&["--listen", listen], more].concat())
}

#[test]
fn lines_go_out_and_come_back_as_text() {
    let server = serve("ws://127.0.0.1:0/chat?deflate=true", &[]);
    let base = server.url.split('?').next().unwrap();
    for query in ["", "?deflate=true", "?room=7"] {
        let url = format!("{base}{query}");
        let (out, _) = ended(&connect(&[&url], "one\n\nthree ä\n".as_bytes()), 0);
        assert_eq!(out, "one\n\nthree ä\n");
    }
    let other = base.replace("/chat", "/other");
    let (_, errors) = ended(&connect(&[&other], b"one\n"), 3);
    assert!(errors.contains("404 Not Found"), "{errors}");
    let arguments = ["--header", "Origin: https://evil.example", base];
    let (_, errors) = ended(&connect(&arguments, b"one\n"), 3);
    assert!(errors.contains("403 Forbidden"), "{errors}");
}

#[test]
fn with_tls() {
    let server = serve("wss://127.0.0.1:0", &["--self-signed"]);
    let arguments = ["--danger-trust-any-certificate", server.url.as_str()];
    let (out, _) = ended(&connect(&arguments, b"one\n"), 0);
    assert_eq!(out, "one\n");
}

#[test]
fn python_speaks_with_what_is_served() {
    let server = serve("ws://127.0.0.1:0", &["--mode", "upper"]);
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/bin/python3");
    assert!(
        python.is_file(),
        "{} is missing, and this test needs it: run `scripts/test.sh --prepare`",
        python.display()
    );
    let code = "import sys; from websockets.sync.client import connect\n\
                with connect(sys.argv[1]) as peer:\n  \
                peer.send('text'); print(repr(peer.recv()))\n  \
                peer.send(b'bytes\\xff'); print(repr(peer.recv()))\n";
    let mut command = std::process::Command::new(python);
    command.args(["-c", code, &server.url]);
    let (out, _) = ended(&run(command, b""), 0);
    assert_eq!(out, "'TEXT'\nb'BYTES\\xff'\n");
}

#[test]
fn bench_loads_it() {
    let server = serve("ws://127.0.0.1:0", &[]);
    let mut command = netsys();
    let options = "--seconds 0.05 --rounds 1 --workload ping --json";
    command
        .arg("bench")
        .arg(&server.url)
        .args(options.split(' '));
    let (out, errors) = ended(&run(command, b""), 0);
    assert!(out.contains("target"), "{out}{errors}");
}

#[test]
fn settings_are_checked() {
    for (listen, why) in [
        ("ws://127.0.0.1", "a port is missing"),
        ("ws://127.0.0.1:0?tsl=true", "unknown parameter"),
        ("wss://127.0.0.1:0?tls=false", "always has TLS"),
        ("ws://127.0.0.1:0?framing=lines", "framing of its own"),
    ] {
        let mut command = netsys();
        command.args(["serve", "--listen", listen]);
        let output = run(command, b"");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(why), "{errors}");
    }
}
