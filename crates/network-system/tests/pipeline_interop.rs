//! Another implementation speaks with our pipeline, as client and as server: Python with other people's
//! lz4, zstd, zlib and Noise, written from docs/PROTOCOL.md.
//!
//! What it needs must be there; `scripts/test.sh` installs it.
#![cfg(all(unix, feature = "compression", feature = "noise"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::path::Path;

use common::piped::{self, CLIENT, PSK, SERVER, client_key, dial, server_key};
use common::programs::run;
use common::{echo, eventually, within};
use network_system::config::{Compression, Noise, Pipeline, PublicKey};
use network_system::{ErrorKind, connect_with};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

/// The Python that has what the peer needs.
fn peer(role: &str, port: u16, noise: &str, compression: &str, keys: &[String]) -> Command {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/bin/python3");
    assert!(
        python.is_file(),
        "{} is missing, and this test needs it: run `scripts/test.sh --prepare`",
        python.display()
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/pipeline_peer.py");
    let mut command = Command::new(python);
    command
        .arg(script)
        .args([role, &port.to_string(), noise, compression])
        .args(keys)
        .kill_on_drop(true)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    command
}

fn hex(key: [u8; 32]) -> String {
    PublicKey(key).to_string()
}

const NOISES: [&str; 4] = ["none", "NNpsk0", "XX", "IK"];
const COMPRESSIONS: [&str; 4] = ["none", "lz4", "deflate", "zstd"];

/// Our settings, with keys that change often, and the peer's keys.
fn settings(noise: &str, compression: &str, server: bool) -> (Pipeline, Vec<String>) {
    let (ours, theirs) = if server {
        (SERVER, CLIENT)
    } else {
        (CLIENT, SERVER)
    };
    let (our_key, their_key) = if server {
        (server_key(), client_key())
    } else {
        (client_key(), server_key())
    };
    let (noise, keys) = match noise {
        "none" => (None, Vec::new()),
        "NNpsk0" => (Some(Noise::psk(PSK)), vec![hex(PSK)]),
        "XX" => (Some(Noise::xx(ours).peer(their_key)), vec![hex(theirs)]),
        _ => {
            let keys = vec![hex(theirs), our_key.to_string()];
            (Some(Noise::ik(ours).peer(their_key)), keys)
        }
    };
    let compression: Compression = compression.parse().unwrap();
    let pipeline = Pipeline {
        noise: noise.map(|noise| noise.rekey(7, 1 << 20)),
        ..Pipeline::new().compress(compression)
    };
    (pipeline, keys)
}

/// What the peer has seen of us is what was set.
#[track_caller]
fn check(report: &str, noise: &str, compression: usize) {
    let seen = match compression {
        0 => "seen=0 ".to_owned(),
        other => format!("seen=0,{other} "),
    };
    assert!(
        report.starts_with("ok ") && report.contains(&seen),
        "{report}"
    );
    let rekeyed = !report.contains("rekeyed=0 ");
    assert_eq!(rekeyed, noise != "none", "{report}");
    // larger than any record of Noise
    let largest: usize = report.trim().rsplit_once('=').unwrap().1.parse().unwrap();
    assert!(largest > 2_000_000, "{report}");
}

#[tokio::test]
async fn a_client_of_another_implementation() {
    for noise in NOISES {
        for (n, compression) in COMPRESSIONS.into_iter().enumerate() {
            let (pipeline, keys) = settings(noise, compression, true);
            let echo = echo(|builder| builder.pipeline(pipeline)).await;
            let port = echo.address().port();
            let (output, status) = run(peer("client", port, noise, compression, &keys), b"").await;
            let output = String::from_utf8(output).unwrap();
            assert!(status.success(), "{noise} {compression}: {output}");
            check(&output, noise, n);
            eventually("a regular end", || echo.ended("peer") == 1).await;
        }
    }
}

#[tokio::test]
async fn a_server_of_another_implementation() {
    for noise in NOISES {
        for (n, compression) in COMPRESSIONS.into_iter().enumerate() {
            let (pipeline, keys) = settings(noise, compression, false);
            let mut server = peer("server", 0, noise, compression, &keys)
                .spawn()
                .unwrap();
            let mut out = BufReader::new(server.stdout.take().unwrap());
            let mut line = String::new();
            within(out.read_line(&mut line)).await.unwrap();
            let url = format!(
                "tcp://127.0.0.1:{}",
                line.trim().trim_start_matches("port ")
            );
            let mut connection = dial(&url, pipeline).await.unwrap();
            let agreed = connection.info().pipeline.clone().unwrap();
            let knows = matches!(noise, "XX" | "IK");
            let known = agreed.noise.as_ref().and_then(|noise| noise.peer);
            assert_eq!(known, knows.then(server_key));
            for size in piped::sizes().into_iter().chain([2_000_000]) {
                for message in [piped::text(size), piped::noise(size)] {
                    piped::round_trip(&mut connection, &message).await;
                }
            }
            within(connection.close()).await.unwrap();
            line.clear();
            within(out.read_to_string(&mut line)).await.unwrap();
            assert!(within(server.wait()).await.unwrap().success());
            check(&line, noise, n);
        }
    }
}

/// Wrong keys, from both sides: the same codes as among ourselves.
#[tokio::test]
async fn another_implementation_with_the_wrong_key() {
    for (noise, kind) in [
        ("NNpsk0", ErrorKind::Handshake),
        ("XX", ErrorKind::Untrusted),
        ("IK", ErrorKind::Untrusted),
    ] {
        let (pipeline, keys) = settings(noise, "none", true);
        let mut echo = echo(|builder| builder.pipeline(pipeline)).await;
        let port = echo.address().port();
        let wrong = [&[hex([0x77; 32])], keys.get(1..).unwrap_or_default()].concat();
        let mut command = peer("client", port, noise, "none", &wrong);
        command.stderr(std::process::Stdio::null());
        let (output, status) = run(command, b"").await;
        assert_eq!(echo.next_error().await.kind(), kind, "{noise}");
        let output = String::from_utf8(output).unwrap();
        // with XX it is through when it is refused
        let told = output == "refused\n" || (noise == "XX" && !status.success());
        assert!(told, "{noise}: {output}");

        let (pipeline, keys) = settings(noise, "none", false);
        let wrong = [&[hex([0x77; 32])], keys.get(1..).unwrap_or_default()].concat();
        let mut command = peer("server", 0, noise, "none", &wrong);
        command.stderr(std::process::Stdio::null());
        let mut server = command.spawn().unwrap();
        let mut out = BufReader::new(server.stdout.take().unwrap());
        let mut line = String::new();
        within(out.read_line(&mut line)).await.unwrap();
        let url = format!(
            "tcp://127.0.0.1:{}",
            line.trim().trim_start_matches("port ")
        );
        let Err(error) = within(connect_with(&url, &piped::client(pipeline))).await else {
            panic!("connected with {noise}");
        };
        let kind = if noise == "XX" {
            ErrorKind::Untrusted
        } else {
            // it cannot read what we begin with, and is gone
            ErrorKind::Handshake
        };
        assert_eq!(error.kind(), kind, "{noise}: {error}");
    }
}
