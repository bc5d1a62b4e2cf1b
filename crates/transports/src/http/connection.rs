//! The life of one connection: [`serve`] lets hyper do HTTP, and watches deadlines and the shutdown.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use network_system_core::{CloseReason, Error, ErrorKind, Host, LinkInfo};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::io::{Counted, Rope, Stream};
use super::life::{Life, Limits, Look, no_head};
use super::link::Serving;
use super::service::Answering;
use super::{HttpConnection, OnConnection};
use crate::schemes::AnyLink;

/// With which every HTTP/2 connection begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of answers that hyper holds for one connection (HTTP/1) or request (HTTP/2).
const SEND_BUFFER: usize = 64 * 1024;
/// How long a connection that was told to end may take where no request is left.
const GOODBYE: Duration = Duration::from_secs(5);

/// Serves a connection to its end.
pub(super) async fn serve(
    mut io: Box<dyn Stream>,
    prefix: Bytes,
    info: LinkInfo,
    serving: Arc<Serving>,
    host: Host<AnyLink>,
) -> CloseReason {
    let begun = Instant::now();
    let config = &serving.config;
    let timeout = config.http.header_timeout;
    let mut begins = BytesMut::from(prefix);
    let deadline = tokio::time::sleep_until(begun + timeout);
    let http2 = tokio::select! {
        biased;
        http2 = is_http2(&mut io, &mut begins) => match http2 {
            Ok(http2) => http2,
            Err(error) => return CloseReason::Network(Error::from_io("read a request", error).peer(&info.peer)),
        },
        () = drained(&host) => return CloseReason::Shutdown,
        () = deadline => return no_head(timeout, begins.len() as u64),
    };
    if begins.is_empty() {
        return CloseReason::Peer;
    }
    let session = host.session_config();
    let limits = Limits {
        header_timeout: timeout,
        keep_alive: config.http.keep_alive,
        slow_timeout: session.limits.slow_reader_timeout,
        least: session.outbox.low as u64,
    };
    let life = Life::new(begun, http2, limits);
    let io = Counted::new(io, begins.freeze(), life.clone(), host.clone());
    let rope = io.rope();
    let connection = HttpConnection(Arc::new(OnConnection {
        info,
        config: config.clone(),
        host: host.clone(),
    }));
    let answering = Arc::new(Answering::new(connection, life.clone(), serving.clone()));
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        answering.clone().answer(request)
    });
    let io = TokioIo::new(io);
    let running = Running {
        life,
        host: host.clone(),
        rope,
    };
    if http2 {
        let builder = http2_builder(&serving, &host);
        running
            .run(builder.serve_connection(io, service), |it| {
                it.graceful_shutdown()
            })
            .await
    } else {
        let builder = http1_builder(&serving);
        let connection = builder.serve_connection(io, service).with_upgrades();
        running.run(connection, |it| it.graceful_shutdown()).await
    }
}

/// Whether the first bytes are those of HTTP/2; reads until that is clear.
async fn is_http2(io: &mut Box<dyn Stream>, begins: &mut BytesMut) -> io::Result<bool> {
    loop {
        let common = begins.len().min(PREFACE.len());
        if begins.get(..common) != PREFACE.get(..common) {
            return Ok(false);
        }
        if common == PREFACE.len() {
            return Ok(true);
        }
        if io.read_buf(begins).await? == 0 {
            return Ok(false);
        }
    }
}

/// When a shutdown waits no longer for a connection that has not asked for anything.
async fn drained(host: &Host<AnyLink>) {
    let grace = host.draining().await;
    tokio::time::sleep(grace).await;
}

fn http1_builder(serving: &Serving) -> http1::Builder {
    let config = &serving.config.http;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // ours is from the first byte of a head, so that a connection may rest between two
        .header_read_timeout(None)
        .max_headers(config.max_header_fields)
        .max_header_size(config.max_header)
        .max_buf_size(config.max_header.max(SEND_BUFFER));
    builder
}

fn http2_builder(serving: &Serving, host: &Host<AnyLink>) -> http2::Builder<Tasks> {
    let config = &serving.config.http;
    let mut builder = http2::Builder::new(Tasks(host.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_streams)
        .max_header_list_size(u32::try_from(config.max_header).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .enable_connect_protocol();
    let heartbeat = &host.session_config().heartbeat;
    if let Some(interval) = heartbeat.interval {
        builder
            .keep_alive_interval(interval)
            .keep_alive_timeout(interval.saturating_mul(heartbeat.missed));
    }
    builder
}

/// Runs the requests of HTTP/2 where their connection runs.
#[derive(Clone)]
struct Tasks(Host<AnyLink>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// A connection that hyper runs.
struct Running {
    life: Arc<Life>,
    host: Host<AnyLink>,
    rope: Arc<Rope>,
}

impl Running {
    /// `end` lets the connection end in good order.
    async fn run<C>(self, connection: C, end: fn(Pin<&mut C>)) -> CloseReason
    where
        C: Future<Output = Result<(), hyper::Error>>,
    {
        let reason = {
            let connection = pin!(connection);
            self.drive(connection, end).await
        };
        self.rope.set_away();
        if self.rope.gone.is_cancelled() {
            return reason;
        }
        // somebody has upgraded it: it counts as a connection until that ends too
        let mut cut = CutOnDrop(Some(&self.rope));
        tokio::select! {
            biased;
            () = self.host.handed_over() => cut.0 = None,
            () = self.rope.gone.cancelled() => {}
        }
        reason
    }

    async fn drive<C>(&self, mut connection: Pin<&mut C>, end: fn(Pin<&mut C>)) -> CloseReason
    where
        C: Future<Output = Result<(), hyper::Error>>,
    {
        let mut ending = None;
        let mut draining = pin!(self.host.draining());
        let mut grace = None;
        let look = tokio::time::sleep_until(Instant::now());
        let mut look = pin!(look);
        loop {
            tokio::select! {
                biased;
                result = &mut connection => return self.reason(result, ending),
                most = &mut draining, if grace.is_none() && ending.is_none() => {
                    grace = Some(Instant::now() + most);
                    look.as_mut().reset(Instant::now());
                }
                () = &mut look => {}
            }
            let now = Instant::now();
            if let Some(until) = grace
                && ending.is_none()
            {
                // who has just come and has not asked yet still may
                if self.life.requests() > 0 || now >= until {
                    end(connection.as_mut());
                    ending = Some(CloseReason::Shutdown);
                } else {
                    let soon = now + Duration::from_millis(10);
                    look.as_mut().reset(soon.min(until));
                    continue;
                }
            }
            match self.life.look(now) {
                _ if self.life.is_flooded() => return flooded(),
                Look::Again(at) => look.as_mut().reset(at),
                Look::Cut(reason) => return reason,
                Look::Close(reason) if ending.is_none() => {
                    end(connection.as_mut());
                    ending = Some(reason);
                    look.as_mut().reset(now + GOODBYE);
                }
                Look::Close(reason) => return ending.unwrap_or(reason),
            }
        }
    }

    /// Why it has ended, as the server counts it.
    fn reason(&self, result: Result<(), hyper::Error>, ending: Option<CloseReason>) -> CloseReason {
        match (result, ending) {
            (Ok(()), Some(reason)) => reason,
            (Ok(()), None) => CloseReason::Peer,
            (Err(error), ending) => why(error, ending),
        }
    }
}

/// Cuts a stream that was given away.
struct CutOnDrop<'a>(Option<&'a Rope>);

impl Drop for CutOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(rope) = self.0 {
            rope.cut();
        }
    }
}

fn flooded() -> CloseReason {
    let error = Error::new(ErrorKind::Protocol, "answer the requests of a connection");
    CloseReason::Protocol(error.because("too many were given up before they were answered"))
}

/// What hyper's error means for the connection.
fn why(error: hyper::Error, ending: Option<CloseReason>) -> CloseReason {
    let is_io = |error: &(dyn std::error::Error + 'static)| error.is::<io::Error>();
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut io = false;
    while let Some(error) = source {
        io = io || is_io(error);
        source = error.source();
    }
    let kind = match (
        io || error.is_closed() || error.is_incomplete_message(),
        error.is_parse(),
    ) {
        (_, true) => ErrorKind::Protocol,
        (true, _) => ErrorKind::ConnectionClosed,
        _ => ErrorKind::Protocol,
    };
    let is_protocol = kind == ErrorKind::Protocol;
    let error = Error::new(kind, "serve HTTP")
        .because(&error)
        .caused_by(error);
    match ending {
        Some(reason) if !is_protocol => reason,
        _ if is_protocol => CloseReason::Protocol(error),
        _ => CloseReason::Network(error),
    }
}
