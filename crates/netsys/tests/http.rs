//! `netsys serve` with HTTP, and curl on the other side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::process::Command;

use common::Server;

/// What curl prints when it succeeds.
fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--max-time",
        "25",
        "--noproxy",
        "*",
    ]);
    let output = command.args(arguments).output().expect("curl");
    let (out, err) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {err}");
    String::from_utf8_lossy(out).into_owned()
}

#[test]
fn curl_is_a_client() {
    let arguments = [
        "--listen",
        "http://127.0.0.1:0",
        "--mode",
        "upper",
        "--stats-interval",
        "20ms",
    ];
    let mut server = Server::start_with(&arguments);
    let here = format!("http://127.0.0.1:{}", server.port());
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let got = curl(&[version, "-d", "hello", &format!("{here}/messages")]);
        assert_eq!(got, "HELLO", "{version}");
    }
    let page = curl(&[&here]);
    assert!(
        page.contains("upper") && page.contains("/messages"),
        "{page}"
    );
    let event = server.event(|event| event["http"]["requests"] == 3);
    assert_eq!(event["http"]["by_method"]["POST"], 2);
    assert_eq!(event["messages_in"], 2);
}

#[test]
fn a_self_signed_certificate_is_for_https_too() {
    let server = Server::start_with(&["--listen", "https://127.0.0.1:0", "--self-signed"]);
    let address = format!("https://127.0.0.1:{}/messages", server.port());
    let got = curl(&[
        "--insecure",
        "-w",
        " %{http_version}",
        "-d",
        "hello",
        &address,
    ]);
    assert_eq!(got, "hello 2");
}

#[test]
fn the_gateway_can_be_off() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("netsys.toml");
    let text = "[server]\nlisten = [\"http://127.0.0.1:0\"]\n[server.http]\nmessages = \"off\"\n";
    std::fs::write(&file, text).unwrap();
    let server = Server::start_with(&["--config", file.to_str().unwrap()]);
    let address = format!("http://127.0.0.1:{}/messages", server.port());
    let status = curl(&[
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-d",
        "hello",
        &address,
    ]);
    assert_eq!(status, "404");
}
