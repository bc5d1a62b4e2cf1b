//! Requests and their replies: deadlines, order, errors of the peer, and ends in between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Healthy, frame, only_session, read_frame, read_to_end, socket_address, within};
use network_system::{Client, CloseReason, Error, ErrorKind, Request, Server, Side};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};

const HELLO: &[u8] = b"\0\0\0\x05\0NSE1";

/// A server with the envelope that does with each request what `answer` says.
async fn server<F>(answer: impl Fn(Request) -> F + Send + Sync + 'static) -> (Server, String)
where
    F: Future<Output = network_system::Result<()>> + Send + 'static,
{
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .envelope(true)
        .on_request(move |_, request| answer(request))
        .start()
        .await
        .unwrap();
    let url = server.listening()[0].to_string();
    (server, url)
}

async fn client(url: &str) -> Client {
    let client = Client::builder(url).envelope(true).connect();
    within(client).await.unwrap()
}

#[tokio::test]
async fn replies_come_to_their_requests() {
    let (_server, url) = server(|request| async {
        let answer = [b"re: ", request.message().as_bytes()].concat();
        request.reply(answer).await
    })
    .await;
    let client = client(&url).await;
    for size in [0, 1, 55, 56, 64, 65, 8191, 8192, 1 << 20] {
        let question = vec![size as u8; size];
        let answer = within(client.request(question.clone())).await.unwrap();
        assert!(answer == [b"re: ", &question[..]].concat(), "{answer:?}");
    }
    let statistics = client.statistics();
    assert_eq!(statistics.messages_dropped, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_may_come_in_any_order() {
    const COUNT: usize = 500;
    let kept = Arc::new(Mutex::new(Vec::new()));
    // all answers wait for the last question, and go out the other way round
    let (_server, url) = server(move |request| {
        let kept = kept.clone();
        async move {
            let all = {
                let mut kept = kept.lock().unwrap();
                kept.push(request);
                match kept.len() {
                    COUNT => std::mem::take(&mut *kept),
                    _ => return Ok(()),
                }
            };
            for request in all.into_iter().rev() {
                let answer = request.message().clone();
                request.reply(answer).await?;
            }
            Ok(())
        }
    })
    .await;
    let client = Arc::new(client(&url).await);
    let tasks: Vec<_> = (0..COUNT)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { (n, client.request(format!("{n}")).await) })
        })
        .collect();
    for task in tasks {
        let (n, answer) = within(task).await.unwrap();
        assert_eq!(answer.unwrap(), format!("{n}"));
    }
}

#[tokio::test]
async fn errors_of_the_peer_arrive() {
    let (_server, url) = server(|request| async move {
        let code: i32 = request.message().as_str().unwrap().parse().unwrap();
        request.fail(code, "the reason");
        Ok(())
    })
    .await;
    let client = client(&url).await;
    for kind in ErrorKind::ALL {
        let error = within(client.request(kind.code().to_string())).await;
        let error = error.unwrap_err();
        assert_eq!((error.kind(), error.side()), (*kind, Side::Theirs));
        let text = error.to_string();
        assert!(text.contains("the reason"), "{text}");
        assert_eq!(error.remote_code(), Some(kind.code()));
        // what happened there has not happened here
        assert!(!error.is_closed() && !error.is_timeout() && !error.is_full());
    }
    // a code that only the peer knows
    let error = within(client.request("12345")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("12345"), "{error}");
    assert_eq!(error.remote_code(), Some(12345));
}

#[tokio::test]
async fn a_request_without_an_answer_fails() {
    let (_server, url) = server(|request| async {
        drop(request);
        Ok(())
    })
    .await;
    let error = within(client(&url).await.request("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("without an answer"), "{error}");

    // nobody serves requests here
    let server = Server::builder().listen("tcp://127.0.0.1:0");
    let server = server.envelope(true).start().await.unwrap();
    let client = client(server.listening()[0].as_str()).await;
    let error = within(client.request("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("not served"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_passes() {
    let (late, mut lates) = mpsc::unbounded_channel::<Request>();
    let server = Server::builder()
        .listen("memory://requests-deadline")
        .envelope(true)
        .heartbeat(None, 1)
        .on_request(move |_, request| {
            let late = late.clone();
            async move {
                match request.message().as_str() {
                    Some("now") => request.reply("here").await,
                    _ => late
                        .send(request)
                        .map_err(|_| Error::new(ErrorKind::Internal, "test")),
                }
            }
        })
        .start()
        .await
        .unwrap();
    let client = Client::builder("memory://requests-deadline")
        .envelope(true)
        .heartbeat(None, 1)
        .request_timeout(Duration::from_secs(7))
        .connect()
        .await
        .unwrap();
    let session = client.session().unwrap();
    let began = tokio::time::Instant::now();
    for (deadline, result) in [
        (7, client.request("later").await),
        (7, session.request("later").await),
        (
            3,
            client.request_within("later", Duration::from_secs(3)).await,
        ),
        (
            2,
            session
                .request_within("later", Duration::from_secs(2))
                .await,
        ),
    ] {
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.is_timeout()),
            (ErrorKind::Timeout, true)
        );
        assert!(
            error.to_string().contains(&format!("{deadline}s")),
            "{error}"
        );
    }
    assert_eq!(began.elapsed().as_secs(), 7 + 7 + 3 + 2);
    // answers that come too late are for nobody, and harm nobody
    for _ in 0..4 {
        lates.recv().await.unwrap().reply("too late").await.unwrap();
    }
    assert_eq!(client.request("now").await.unwrap(), "here");
    assert!(!session.is_closed());
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_a_request_waits_for_one() {
    let client = Client::builder("memory://requests-nobody")
        .envelope(true)
        .start()
        .unwrap();
    let began = tokio::time::Instant::now();
    let error = client.request_within("x", Duration::from_secs(20)).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("no connection"), "{error}");
    assert_eq!(began.elapsed().as_secs(), 20);

    let listen = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Server::builder()
            .listen("memory://requests-nobody")
            .envelope(true)
            .on_request(|_, request| async { request.reply("at last").await })
            .start()
            .await
            .unwrap()
    };
    let ask = client.request_within("x", Duration::from_secs(60));
    let (answer, _server) = tokio::join!(ask, listen);
    assert_eq!(answer.unwrap(), "at last");
}

#[tokio::test]
async fn the_connection_ends_while_a_request_waits() {
    let asked = Arc::new(Notify::new());
    let told = asked.clone();
    let kept = Mutex::new(Vec::new());
    let (server, url) = server(move |request| {
        kept.lock().unwrap().push(request);
        told.notify_one();
        async { Ok(()) }
    })
    .await;
    let client = client(&url).await;
    let session = client.session().unwrap();
    let waiting = tokio::spawn(async move { session.request("x").await });
    within(asked.notified()).await;
    only_session(server.sessions()).await.close("no more");
    let error = within(waiting).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
    assert!(error.to_string().contains("closed by the peer"), "{error}");

    // and one that is asked after the end
    let session = within(client.connected()).await.unwrap();
    within(client.close(Duration::from_secs(10))).await;
    let error = within(session.request("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
}

/// A server whose message handler asks the peer that sent the message, and tells what it answers.
async fn asking_back() -> (
    Server,
    mpsc::UnboundedReceiver<network_system::Result<String>>,
) {
    let (answered, answers) = mpsc::unbounded_channel();
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .envelope(true)
        .on_message(move |session, message| {
            let answered = answered.clone();
            async move {
                let answer = session.request(message).await;
                let _ = answered.send(answer.map(|m| m.as_str().unwrap().to_owned()));
            }
        })
        .start()
        .await
        .unwrap();
    (server, answers)
}

#[tokio::test]
async fn a_handler_may_ask_its_own_session() {
    let (server, mut answers) = asking_back().await;
    let client = Client::builder(server.listening()[0].as_str())
        .envelope(true)
        .on_request(|_, request| async move {
            let answer = format!("{}!", request.message().as_str().unwrap());
            request.reply(answer).await
        })
        .connect()
        .await
        .unwrap();
    // several at once: the second waits for the handler of the first, not for ever
    for n in 0..20 {
        client.send(format!("question {n}")).await.unwrap();
    }
    for n in 0..20 {
        let answer = within(answers.recv()).await.unwrap().unwrap();
        assert_eq!(answer, format!("question {n}!"));
    }
}

/// Reads until the question of [`asking_back`] is there; its number.
async fn question(stream: &mut TcpStream) -> Vec<u8> {
    loop {
        let frame = within(read_frame(stream)).await.unwrap().unwrap();
        if frame[0] == 0x20 {
            return frame[1..9].to_vec();
        }
    }
}

#[tokio::test]
async fn a_reply_behind_much_else_is_found() {
    let (server, mut answers) = asking_back().await;
    let address = socket_address(&server.listening()[0]);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(HELLO).await.unwrap();
    // as many as fit what is read ahead while a handler waits; and any number of what is not kept
    let other_reply = frame(b"\x30\xff\xff\xff\xff\xff\xff\xff\xffnobody asked");
    let data = frame(b"\x10later");
    for (before, count) in [(&other_reply, 10_000), (&data, 1000)] {
        stream.write_all(&frame(b"\x10ask me")).await.unwrap();
        let id = question(&mut stream).await;
        let mut bytes = before.repeat(count);
        bytes.extend(frame(&[b"\x30", &id[..], b"found"].concat()));
        stream.write_all(&bytes).await.unwrap();
        let answer = within(answers.recv()).await.unwrap();
        assert_eq!(answer.unwrap(), "found", "behind {count}");
    }
}

#[tokio::test]
async fn a_plain_peer_meets_the_envelope() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .envelope(true)
        .on_disconnect(move |_, reason| {
            let _ = ended.send(reason.clone());
        })
        .start()
        .await
        .unwrap();
    let address = socket_address(&server.listening()[0]);
    let plain: [&[u8]; 6] = [
        b"hello",
        b"",
        b"\x10a message, but no greeting",
        b"\0\0\0\0",
        b"\x20",
        b"\0NSE2",
    ];
    for payload in plain {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&frame(payload)).await.unwrap();
        let (rest, result) = read_to_end(&mut stream).await;
        assert!(rest == HELLO && result.is_ok(), "{rest:?} {result:?}");
        drop(stream);
        let reason = within(ends.recv()).await.unwrap();
        let CloseReason::Protocol(error) = reason else {
            panic!("{reason:?}")
        };
        assert_eq!(error.code(), -643);
        let text = error.to_string();
        let fix = "turn on `envelope` on both sides, or on neither";
        assert!(text.contains(fix), "{text}");
    }
}

#[tokio::test]
async fn the_envelope_meets_a_plain_server() {
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .on_connect(|session| session.try_send("welcome"))
        .start()
        .await
        .unwrap();
    let url = server.listening()[0].as_str();
    let (failed, error) = oneshot::channel();
    let failed = Mutex::new(Some(failed));
    let _client = Client::builder(url)
        .envelope(true)
        .on_error(move |_, error| {
            if let Some(failed) = failed.lock().unwrap().take() {
                let _ = failed.send(error.clone());
            }
        })
        .start()
        .unwrap();
    let error = within(error).await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    let fix = "turn on `envelope` on both sides, or on neither";
    assert!(error.to_string().contains(fix), "{error}");

    // without the envelope there are no requests, and the error says what to do
    let plain = Client::builder(url).connect().await.unwrap();
    let error = within(plain.request("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSession);
    assert!(error.to_string().contains("turn on `envelope`"), "{error}");
}

#[tokio::test]
async fn the_end_is_announced() {
    let (server, url) = server(|request| async { request.reply("ok").await }).await;
    let client = client(&url).await;
    let session = client.session().unwrap();
    within(client.request("x")).await.unwrap();
    assert!(!session.peer_is_leaving());
    within(server.shutdown(Duration::from_secs(10))).await;
    within(session.ended()).await;
    assert!(session.peer_is_leaving());
}

/// A server asks, too, and has its own deadline for it.
#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_server() {
    let server = Server::builder()
        .listen("memory://server-deadline?envelope=true")
        .heartbeat(None, 1)
        .request_timeout(Duration::from_secs(11))
        .on_message(|session, message| async move { session.send(message).await })
        .start()
        .await
        .unwrap();
    let client = Client::builder("memory://server-deadline?envelope=true")
        .heartbeat(None, 1)
        .on_request(|_, request| async move {
            let _kept = request;
            std::future::pending::<()>().await
        })
        .connect();
    let _client = client.await.unwrap();
    let session = common::only_session(server.sessions()).await;
    let url = "memory://server-deadline?envelope=true";
    let healthy = Healthy::over(url, Duration::from_secs(1)).await;
    let began = tokio::time::Instant::now();
    let error = session.request("never answered").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(began.elapsed().as_secs(), 11);
    assert!(!session.is_closed());
    healthy.finish().await;
}
