//! A peer that sends without end does not keep the others of its thread waiting.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::{Duration, Instant};

use common::{frame, read_frame, round_trip, socket_address, within};
use network_system::Server;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Keeps the thread for a while, as a handler with something to compute does.
fn compute() {
    let since = Instant::now();
    while since.elapsed() < Duration::from_micros(20) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_shares_its_thread() {
    for envelope in [false, true] {
        let server = Server::builder()
            .listen("tcp://127.0.0.1:0")
            .workers(1)
            .envelope(envelope)
            .on_message(|session, message| async move {
                compute();
                match message.len() {
                    0..10 => session.send(message).await,
                    _ => Ok(()),
                }
            })
            .on_request(|_, request| async move {
                compute();
                request.fail(-99, "");
            })
            .start()
            .await
            .unwrap();
        let address = socket_address(&server.listening()[0]);
        let (hello, header, one) = match envelope {
            true => (frame(b"\0NSE1"), &b"\x10"[..], frame(b"\x20requests")),
            false => (vec![], &b""[..], frame(&[7; 60])),
        };
        let mut floods = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&hello).await.unwrap();
            let (mut reader, mut writer) = stream.into_split();
            let many = one.repeat(10_000);
            floods.push(tokio::spawn(async move {
                while writer.write_all(&many).await.is_ok() {}
            }));
            floods.push(tokio::spawn(async move {
                while let Ok(Some(_)) = read_frame(&mut reader).await {}
            }));
        }
        // they have begun
        let busy = || server.statistics().messages_in > 1000;
        common::eventually("the server is flooded", busy).await;

        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&hello).await.unwrap();
        if envelope {
            within(read_frame(&mut stream)).await.unwrap();
        }
        let mut worst = Duration::ZERO;
        for _ in 0..50 {
            let since = Instant::now();
            within(round_trip(&mut stream, &[header, b"ping"].concat())).await;
            worst = worst.max(since.elapsed());
        }
        assert!(worst < Duration::from_secs(2), "{worst:?}");
        floods.iter().for_each(tokio::task::JoinHandle::abort);
        within(server.shutdown(Duration::ZERO)).await;
    }
}
