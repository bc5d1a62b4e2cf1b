//! tonic: unary calls for request and reply, one bidirectional stream for everything else. HTTP/2
//! windows are raised from 64 KiB so that flow control is not what is measured.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use peers::frames::FanOut;
use peers::*;
use tokio::sync::mpsc::{Sender, UnboundedSender, channel, unbounded_channel};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

/// What is made from `echo.proto`.
pub mod pb {
    tonic::include_proto!("echo");
}
use pb::Msg;
use pb::echo_client::EchoClient;
use pb::echo_server::{Echo, EchoServer};

const WINDOW: u32 = 8 << 20;

static EVERYONE: Mutex<Vec<UnboundedSender<Msg>>> = Mutex::new(Vec::new());

struct Svc;

#[tonic::async_trait]
impl Echo for Svc {
    async fn unary(&self, r: Request<Msg>) -> Result<Response<Msg>, Status> {
        Ok(Response::new(r.into_inner()))
    }

    type StreamStream = Pin<Box<dyn Stream<Item = Result<Msg, Status>> + Send>>;

    async fn stream(
        &self,
        r: Request<Streaming<Msg>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (tx, rx) = unbounded_channel();
        EVERYONE.lock().expect("no panic").push(tx);
        let mut tally = Tally::default();
        let answers = r.into_inner().filter_map(move |m| match m {
            Err(e) => Some(Err(e)),
            Ok(m) => match m.body.first() {
                Some(&ECHO) => Some(Ok(m)),
                Some(&SINK) => {
                    tally.add(&m.body);
                    None
                }
                Some(&BROADCAST) => {
                    for s in &*EVERYONE.lock().expect("no panic") {
                        let _ = s.send(m.clone());
                    }
                    None
                }
                _ => Some(Ok(Msg {
                    body: tally.answer().into(),
                })),
            },
        });
        Ok(Response::new(Box::pin(
            answers.merge(UnboundedReceiverStream::new(rx).map(Ok)),
        )))
    }
}

async fn dial(port: u16) -> EchoClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("an address");
    let endpoint = endpoint
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    EchoClient::new(endpoint.connect().await.expect("connect"))
}

async fn call(c: &mut EchoClient<Channel>, body: Vec<u8>, got: &mut Tally) -> u64 {
    let m = c
        .unary(Msg { body: body.into() })
        .await
        .expect("call")
        .into_inner();
    got.add(&m.body);
    token(&m.body)
}

/// Connects and makes one call.
async fn once(port: u16) -> EchoClient<Channel> {
    let (mut c, mut sent, mut got) = (dial(port).await, Tally::default(), Tally::default());
    let body = Pattern::new(ECHO, CTRL).next(0, &mut sent).to_vec();
    call(&mut c, body, &mut got).await;
    sent.check(got, 1);
    c
}

async fn stream(a: &Args) {
    let mut c = once(a.port).await;
    let (mut pattern, result) = (
        Pattern::new(SINK, a.size),
        Arc::new(Mutex::new(Tally::default())),
    );
    let (c0, t0) = (cpu(), now());
    let (end, shared) = (t0 + a.span(), result.clone());
    let (mut sent, mut ended) = (Tally::default(), false);
    // ready at every poll: the encoder packs as much as it likes
    let out = tokio_stream::iter(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        if sent.count.is_multiple_of(64) && now() >= end {
            ended = true;
            *shared.lock().expect("no panic") = sent;
            return Some(Msg {
                body: Pattern::new(END, CTRL).bytes.into(),
            });
        }
        Some(Msg {
            body: pattern.next(sent.count, &mut sent).to_vec().into(),
        })
    }));
    let mut s = c.stream(out).await.expect("stream").into_inner();
    let m = s.message().await.expect("receive").expect("an answer");
    let (t1, sent) = (now(), *result.lock().expect("no panic"));
    sent.check(Tally::from_answer(&m.body), 1);
    report(a, sent.count, t1 - t0, &mut [], c0);
}

async fn pipelined(a: &Args) {
    let mut c = once(a.port).await;
    let (mut pattern, mut clock) = (Pattern::new(ECHO, a.size), LazyClock::new(a.window));
    let (mut sent, mut got) = (Tally::default(), Tally::default());
    let (tx, rx) = channel(a.window);
    let (c0, t0) = (cpu(), now());
    let send = |tx: &Sender<Msg>, m: &[u8]| {
        tx.try_send(Msg {
            body: m.to_vec().into(),
        })
        .expect("room")
    };
    for _ in 0..a.window {
        send(&tx, pattern.next(t0, &mut sent));
    }
    let mut s = c
        .stream(ReceiverStream::new(rx))
        .await
        .expect("stream")
        .into_inner();
    while got.count < sent.count {
        got.add(&s.message().await.expect("receive").expect("closed").body);
        let t = clock.now();
        if t < t0 + a.span() {
            send(&tx, pattern.next(t, &mut sent));
        }
    }
    let t1 = now();
    sent.check(got, 1);
    report(a, got.count, t1 - t0, &mut [], c0);
}

async fn unary(a: &Args) {
    let mut open = Vec::new();
    for _ in 0..a.conns {
        open.push(once(a.port).await);
    }
    let (c0, t0) = (cpu(), now());
    let (end, timed, mut tasks) = (t0 + a.span(), a.timed(), JoinSet::new());
    for c in open {
        for _ in 0..a.window {
            let (mut c, mut pattern) = (c.clone(), Pattern::new(ECHO, a.size));
            tasks.spawn(async move {
                let (mut sent, mut got, mut lat, mut t) =
                    (Tally::default(), Tally::default(), Vec::new(), now());
                while t < end {
                    call(&mut c, pattern.next(t, &mut sent).to_vec(), &mut got).await;
                    let u = now();
                    if timed {
                        lat.push((u - t).min(u32::MAX as u64) as u32);
                    }
                    t = u;
                }
                (sent, got, lat)
            });
        }
    }
    let (mut sent, mut got, mut lat) = (Tally::default(), Tally::default(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (s, g, l) = done.expect("a caller failed");
        sent.merge(s);
        got.merge(g);
        lat.extend(l);
    }
    let t1 = now();
    sent.check(got, 1);
    report(a, got.count, t1 - t0, &mut lat, c0);
}

async fn fanout(a: &Args) {
    let (done, ended) = (
        Arc::new(tokio::sync::Notify::new()),
        Arc::new(AtomicU64::new(u64::MAX)),
    );
    let shared: Arc<OnceLock<Arc<FanOut>>> = Arc::default();
    let mut senders = Vec::new();
    for _ in 0..a.conns {
        let (tx, rx) = channel(a.window + 1);
        tx.try_send(Msg {
            body: Pattern::new(ECHO, CTRL).bytes.into(),
        })
        .expect("room");
        let mut s = dial(a.port)
            .await
            .stream(ReceiverStream::new(rx))
            .await
            .expect("stream")
            .into_inner();
        s.message().await.expect("receive").expect("an echo");
        let (tx2, shared, done, ended) = (tx.clone(), shared.clone(), done.clone(), ended.clone());
        tokio::spawn(async move {
            while let Ok(Some(m)) = s.message().await {
                let shared = shared.get().expect("a load");
                if let Some(next) = shared.arrived(&m.body) {
                    tx2.send(Msg { body: next.into() }).await.expect("send");
                } else if shared.done() {
                    ended.store(now(), Relaxed);
                    done.notify_one();
                }
            }
        });
        senders.push(tx);
    }
    let (c0, t0) = (cpu(), now());
    let all = shared.get_or_init(|| FanOut::new(a, t0 + a.span()));
    for _ in 0..a.window {
        senders[0]
            .send(Msg {
                body: all.next(now()).into(),
            })
            .await
            .expect("send");
    }
    done.notified().await;
    report(a, all.finish(), ended.load(Relaxed) - t0, &mut [], c0);
}

async fn serve(port: u16) {
    let l = listener(port);
    ready();
    let incoming = tonic::transport::server::TcpIncoming::from(l).with_nodelay(Some(true));
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .add_service(EchoServer::new(Svc))
        .serve_with_incoming(incoming)
        .await
        .expect("serve");
}

fn main() {
    let a = args();
    runtime().block_on(async {
        match a.workload.as_str() {
            _ if a.server => serve(a.port).await,
            "stream" => stream(&a).await,
            "echo" if a.conns == 1 && a.window > 1 => pipelined(&a).await,
            "echo" => unary(&a).await,
            "fanout" => fanout(&a).await,
            "connect" => one_by_one(&a, false, once).await,
            "idle" => one_by_one(&a, true, once).await,
            w => panic!("unknown workload {w}"),
        }
    });
    std::process::exit(0);
}
