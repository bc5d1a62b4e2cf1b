//! Programs of this machine that speak with our servers and clients.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::within;

/// A program of this machine; it is a failure when it is missing, since these tests are the proof
/// that others can speak with us.
pub fn program(name: &str, package: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    assert!(
        found,
        "`{name}` is missing, and this test needs it: run `scripts/test.sh --prepare`, or install \
         the Debian package {package}"
    );
    let mut command = Command::new(name);
    command
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// A script of `tests/interop`.
pub fn python(script: &str) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    let mut command = program("python3", "python3");
    command.arg(folder.join(script));
    command
}

/// A script of `tests/interop` in the environment that `scripts/test.sh --prepare` makes.
pub fn python_peer(script: &str) -> Command {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        std::path::PathBuf::from,
    );
    let python = target.join("python/bin/python3");
    assert!(
        python.exists(),
        "{} is missing, and this test needs it: run `scripts/test.sh --prepare`",
        python.display()
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    let mut command = Command::new(python);
    command
        .arg(folder.join(script))
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// Gives `input` to a program and ends its input; what it printed and how it ended.
pub async fn run(mut command: Command, input: &[u8]) -> (Vec<u8>, ExitStatus) {
    let mut child = command.spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut output = Vec::new();
    let (written, read) = within(async {
        let write = async {
            let result = stdin.write_all(input).await;
            drop(stdin);
            result
        };
        tokio::join!(write, stdout.read_to_end(&mut output))
    })
    .await;
    written.unwrap();
    read.unwrap();
    (output, within(child.wait()).await.unwrap())
}

/// As [`run`] for a script that must say `ok`.
pub async fn run_ok(command: Command) {
    let (output, status) = run(command, b"").await;
    let output = String::from_utf8_lossy(&output);
    assert!(
        status.success() && output.starts_with("ok"),
        "{status}: {output}"
    );
}
