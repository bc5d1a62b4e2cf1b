//! Connecting to the session service: [`connect`].

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming as Body;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use network_system_core::config::LinkConfig;
use network_system_core::{Address, Error, ErrorKind, LinkInfo, Result, worker};
use tokio::sync::mpsc;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};
use tower::Service;

use super::ENVELOPE;
use super::generated::session_service_client::SessionServiceClient;
use super::link::{GrpcLink, Incoming};
use super::service::{Asking, Outgoing};
use crate::http::Stream;

/// Bytes that may be on their way without a word of the other side: gRPC's own 64 KiB are little for
/// streams.
const WINDOW: u32 = 2 * 1024 * 1024;
/// Bytes of requests that are held for one stream.
const SEND_BUFFER: usize = 64 * 1024;

/// How long a server has to refuse a session before that counts as open: ours answer at once, others
/// with their first message.
const PATIENCE: Duration = Duration::from_millis(200);

/// Runs what hyper needs beside the session.
#[derive(Clone)]
struct Beside;

impl<F> Executor<F> for Beside
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        worker::run(async move {
            task.await;
        });
    }
}

/// Opens a session over a stream that nothing has been sent on.
pub(crate) async fn connect(
    stream: Box<dyn Stream>,
    mut info: LinkInfo,
    address: &Address,
    config: &LinkConfig,
) -> Result<GrpcLink> {
    let failed = |kind, why: String| Error::new(kind, "connect to").peer(address).because(why);
    let mut builder = http2::Builder::new(Beside);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    let heartbeat = &config.session.heartbeat;
    if let Some(interval) = heartbeat.interval {
        builder
            .keep_alive_interval(interval)
            .keep_alive_timeout(interval.saturating_mul(heartbeat.missed));
    }
    let handshake = builder
        .handshake::<_, tonic::body::Body>(TokioIo::new(stream))
        .await;
    let (sender, connection) =
        handshake.map_err(|error| failed(ErrorKind::Handshake, error.to_string()))?;
    worker::run(async move {
        if let Err(error) = connection.await {
            // the session has it, too
            tracing::debug!(%error, "a connection of gRPC has failed");
        }
    });
    info.scheme = if info.tls.is_some() { "grpcs" } else { "grpc" };
    let origin = origin(address, info.tls.is_some())
        .map_err(|error| failed(ErrorKind::InvalidArgument, error.to_string()))?;
    let most = config.session.max_message.saturating_add(64);
    let mut client = SessionServiceClient::with_origin(Requests(sender), origin)
        .max_decoding_message_size(most)
        .max_encoding_message_size(usize::MAX)
        .accept_compressed(CompressionEncoding::Zstd)
        .accept_compressed(CompressionEncoding::Gzip);
    let (batches, outgoing) = mpsc::channel(1);
    let mut request = tonic::Request::new(Asking(Outgoing::new(outgoing)));
    let agent = concat!("network-system/", env!("CARGO_PKG_VERSION"));
    let agent = tonic::metadata::MetadataValue::from_static(agent);
    request.metadata_mut().insert("user-agent", agent);
    if info.envelope {
        let on = tonic::metadata::MetadataValue::from_static("true");
        request.metadata_mut().insert(ENVELOPE, on);
    }
    let mut answer: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move {
        let response = client.connect(request).await?;
        Ok(response.into_inner())
    });
    let incoming = match tokio::time::timeout(PATIENCE, &mut answer).await {
        Ok(Ok(stream)) => Incoming::Streaming(Box::new(stream)),
        Ok(Err(status)) => return Err(failed(kind(&status), status.message().to_owned())),
        Err(_) => Incoming::Asked(answer),
    };
    Ok(GrpcLink::new(info, incoming, batches))
}

fn origin(address: &Address, tls: bool) -> std::result::Result<Uri, http::Error> {
    let (host, port) = address.host_and_port().unwrap_or_default();
    let host = match host {
        "" => "localhost".to_owned(),
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    };
    Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(format!("{host}:{port}"))
        .path_and_query("/")
        .build()
}

fn kind(status: &Status) -> ErrorKind {
    match status.code() {
        Code::Unimplemented | Code::FailedPrecondition | Code::Internal => ErrorKind::Handshake,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::PermissionDenied,
        _ => ErrorKind::ConnectionFailed,
    }
}

/// Requests on one connection, as tonic wants to send them.
struct Requests(SendRequest<tonic::body::Body>);

impl Service<Request<tonic::body::Body>> for Requests {
    type Response = Response<Body>;
    type Error = hyper::Error;
    type Future =
        Pin<Box<dyn Future<Output = std::result::Result<Response<Body>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
