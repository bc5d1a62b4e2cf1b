//! Other people's programs speak the wire format with our servers and clients: Python's standard
//! library, socat and netcat, over TCP and Unix sockets.
//!
//! The programs must be there; `scripts/test.sh` installs them.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use common::programs::{program, python, run, run_ok};
use common::{echo, echo_on, frame, read_frame, within};
use network_system::{Backoff, Client, ErrorKind, Framing, MessageBatch, Request, Server, wire};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};

/// A folder, and the path of a socket in it.
fn socket_path() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.sock");
    (folder, path)
}

const PAYLOADS: [&[u8]; 4] = [b"one", b"", b"three \0\xff", b"four"];

fn frames() -> Vec<u8> {
    let long = vec![0x5a; 100_000];
    let payloads = PAYLOADS.iter().copied().chain([&long[..]]);
    payloads.flat_map(frame).collect()
}

#[tokio::test]
async fn python_over_tcp() {
    let mut echo = echo(|builder| builder).await;
    let address = echo.address();
    let mut command = python("echo_client.py");
    command.args(["tcp", "127.0.0.1", &address.port().to_string()]);
    run_ok(command).await;
    assert_eq!(echo.next_end().await.label(), "peer");
    let statistics = echo.server.statistics();
    assert_eq!(statistics.messages_in, 11 + 500 + 3);
    assert_eq!(statistics.messages_out, 11 + 500 + 3);
    assert_eq!(statistics.bytes_in, statistics.bytes_out);
}

#[tokio::test]
async fn python_over_unix() {
    let (_folder, path) = socket_path();
    let mut echo = echo_on(&[&format!("unix://{}", path.display())], |builder| builder).await;
    let mut command = python("echo_client.py");
    command.arg("unix").arg(&path);
    run_ok(command).await;
    assert_eq!(echo.next_end().await.label(), "peer");
}

#[tokio::test]
async fn python_as_the_server() {
    let mut child = python("echo_server.py").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = within(lines.next_line()).await.unwrap().unwrap();
    let (back, mut came) = mpsc::unbounded_channel();
    let client = Client::builder(format!("tcp://127.0.0.1:{port}"))
        .on_message(move |_, message| {
            let _ = back.send(message);
            async {}
        })
        .connect()
        .await
        .unwrap();
    let sizes = [0, 1, 64, 65, 8191, 8192, 1 << 20];
    let batch: MessageBatch = sizes.iter().map(|n| vec![*n as u8; *n]).collect();
    within(client.send_batch(batch)).await.unwrap();
    for size in sizes {
        let message = within(came.recv()).await.unwrap();
        assert!(message == vec![size as u8; size], "{size}: {message:?}");
    }
    within(client.close(Duration::from_secs(10))).await;
    let last = within(lines.next_line()).await.unwrap().unwrap();
    assert_eq!(last, format!("messages {}", sizes.len()));
    assert!(within(child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn netcat_and_socat_with_lines() {
    let (_folder, path) = socket_path();
    let unix = format!("unix://{}?framing=lines", path.display());
    let addresses = ["tcp://127.0.0.1:0?framing=lines", &unix];
    let mut echo = echo_on(&addresses, |builder| builder).await;
    let port = echo.address().port().to_string();
    let path = path.to_str().unwrap();

    let mut commands = Vec::new();
    for arguments in [&["127.0.0.1", &port][..], &["-U", path]] {
        let mut command = program("nc", "netcat-openbsd");
        command.arg("-N").args(arguments);
        commands.push(command);
    }
    for target in [
        format!("TCP:127.0.0.1:{port}"),
        format!("UNIX-CONNECT:{path}"),
    ] {
        let mut command = program("socat", "socat");
        command.args(["-t", "10", "-", &target]);
        commands.push(command);
    }
    for command in commands {
        let shown = format!("{command:?}");
        // the end of the input ends the last line too, and CR LF becomes LF
        let (output, status) = run(command, b"one\ntwo\r\n\nlast").await;
        assert!(status.success(), "{shown}: {status}");
        assert_eq!(output.escape_ascii().to_string(), "one\\ntwo\\n\\nlast\\n");
        assert_eq!(echo.next_end().await.label(), "peer", "{shown}");
    }
}

#[tokio::test]
async fn netcat_and_socat_with_the_default_frames() {
    let (_folder, path) = socket_path();
    let unix = format!("unix://{}", path.display());
    let mut echo = echo_on(&["tcp://127.0.0.1:0", &unix], |builder| builder).await;
    let port = echo.address().port().to_string();
    let path = path.to_str().unwrap();
    let tcp = format!("TCP:127.0.0.1:{port}");
    let connect = format!("UNIX-CONNECT:{path}");
    for (name, package, arguments) in [
        ("nc", "netcat-openbsd", vec!["-N", "127.0.0.1", &port]),
        ("nc", "netcat-openbsd", vec!["-N", "-U", path]),
        ("socat", "socat", vec!["-t", "10", "-", &tcp]),
        ("socat", "socat", vec!["-t", "10", "-", &connect]),
    ] {
        let mut command = program(name, package);
        command.args(&arguments);
        let (output, status) = run(command, &frames()).await;
        assert!(status.success(), "{name} {arguments:?}: {status}");
        assert!(output == frames(), "{name} {arguments:?}: {}", output.len());
        assert_eq!(echo.next_end().await.label(), "peer");
    }
}

/// Sends a few messages through a client and fails unless they come back in order.
async fn client_against(url: &str, framing: Framing) {
    let (back, mut came) = mpsc::unbounded_channel();
    // the program may need a moment to listen
    let client = Client::builder(url)
        .framing(framing)
        .reconnect(Backoff::every(Duration::from_millis(10)))
        .on_message(move |_, message| {
            let _ = back.send(message);
            async {}
        })
        .start()
        .unwrap();
    for text in ["first", "", "third"] {
        within(client.send(text)).await.unwrap();
    }
    for text in ["first", "", "third"] {
        assert_eq!(within(came.recv()).await.unwrap(), text);
    }
    within(client.close(Duration::from_secs(10))).await;
}

#[tokio::test]
async fn socat_as_the_server() {
    for framing in ["length", "lines"] {
        let (_folder, path) = socket_path();
        let mut command = program("socat", "socat");
        command.args([&format!("UNIX-LISTEN:{}", path.display()), "EXEC:cat"]);
        let mut child: Child = command.spawn().unwrap();
        let url = format!("unix://{}", path.display());
        client_against(&url, framing.parse().unwrap()).await;
        assert!(within(child.wait()).await.unwrap().success());
    }
}

#[tokio::test]
async fn netcat_as_the_server() {
    let (_folder, path) = socket_path();
    let mut command = program("nc", "netcat-openbsd");
    command.args(["-l", "-U"]).arg(&path);
    let mut child = command.spawn().unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut lines = BufReader::new(stdout).lines();
    let (back, mut came) = mpsc::unbounded_channel();
    let client = Client::builder(format!("unix://{}", path.display()))
        .framing(Framing::Lines(wire::Lines::new()))
        .reconnect(Backoff::every(Duration::from_millis(10)))
        .on_message(move |_, message| {
            let _ = back.send(message);
            async {}
        })
        .start()
        .unwrap();
    within(client.send("to netcat")).await.unwrap();
    let line = within(lines.next_line()).await.unwrap();
    assert_eq!(line.as_deref(), Some("to netcat"));
    within(stdin.write_all(b"from netcat\n")).await.unwrap();
    assert_eq!(within(came.recv()).await.unwrap(), "from netcat");
}

/// Answers as `envelope_peer.py` expects it.
async fn answer(request: Request, slow: &Mutex<Option<Request>>) -> network_system::Result<()> {
    match request.message().as_str() {
        Some("slow") => {
            *slow.lock().unwrap() = Some(request);
            Ok(())
        }
        Some("fast") => {
            request.reply("fast").await?;
            let slow = slow.lock().unwrap().take();
            slow.expect("`slow` came first").reply("slow").await
        }
        _ => {
            request.fail(ErrorKind::PermissionDenied.code(), "not for you");
            Ok(())
        }
    }
}

#[tokio::test]
async fn python_with_the_envelope() {
    let slow = std::sync::Arc::new(Mutex::new(None));
    let (stop, stopped) = oneshot::channel();
    let stop = Mutex::new(Some(stop));
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .envelope(true)
        .on_request(move |_, request| {
            let slow = slow.clone();
            async move { answer(request, &slow).await }
        })
        .on_message(move |session, message| {
            let stop = match message.as_str() {
                Some("stop") => stop.lock().unwrap().take(),
                _ => None,
            };
            async move {
                match message.as_str() {
                    Some("ask me") => {
                        let answer = session.request("question 1").await?;
                        let error = session.request("question 2").await.unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::NotFound);
                        assert!(error.to_string().contains("unknown here"), "{error}");
                        let code = error.code();
                        let answer = format!("{}; {code}", answer.as_str().unwrap());
                        session.send(answer).await
                    }
                    _ if stop.is_some() => {
                        let _ = stop.unwrap().send(());
                        Ok(())
                    }
                    _ => session.send(message).await,
                }
            }
        })
        .start()
        .await
        .unwrap();
    let port = server.listening()[0].port().unwrap().to_string();
    let mut command = python("envelope_peer.py");
    command.args(["127.0.0.1", &port]);
    let end = async {
        within(stopped).await.unwrap();
        server.shutdown(Duration::from_secs(10)).await
    };
    let ((), report) = tokio::join!(run_ok(command), end);
    assert_eq!((report.sessions, report.cut), (1, 0));
}

/// What the document says about the bytes, word for word: nothing of this library on this side.
#[tokio::test]
async fn the_bytes_of_a_message() {
    let echo = echo(|builder| builder).await;
    let mut stream = echo.dial().await;
    stream.write_all(b"\0\0\0\x05hello").await.unwrap();
    let mut back = [0; 9];
    within(stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"\0\0\0\x05hello");
    stream.write_all(b"\0\0\0\0").await.unwrap();
    assert_eq!(within(read_frame(&mut stream)).await.unwrap().unwrap(), b"");
}
