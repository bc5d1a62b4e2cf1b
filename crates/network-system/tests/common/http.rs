//! Programs that speak HTTP, and where they find the server.

use std::process::Stdio;

use network_system::Server;
use tokio::process::Command;

use super::within;

/// A path of the server's first address.
pub fn url(server: &Server, path: &str) -> String {
    let address = &server.listening()[0];
    let port = address.port().unwrap();
    format!("{}://127.0.0.1:{port}{path}", address.scheme())
}

/// What a program prints when it succeeds.
pub async fn output(program: &str, arguments: &[&str]) -> String {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within(child).await.unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {out}{err}"
    );
    out
}

/// What curl prints when it succeeds.
pub async fn curl(arguments: &[&str]) -> String {
    let mut all = vec![
        "--silent",
        "--show-error",
        "--max-time",
        "25",
        "--noproxy",
        "*",
    ];
    all.extend(arguments);
    output("curl", &all).await
}
