//! What answers gRPC requests: [`Grpc`] collects the services, [`GrpcService`] is what a listener has.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response};
use network_system_core::{Error, ErrorKind, Result};
use tokio::sync::{OnceCell, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tonic::{Status, Streaming};
use tower::{Service, ServiceExt};

use super::generated::Message;
use super::generated::session_service_server::{SessionService, SessionServiceServer};
use super::link::{Batch, GrpcLink, Incoming};
use super::{DESCRIPTORS, ENVELOPE};
use crate::http::{HttpConnection, RequestBody, ResponseBody, boxed};
use crate::schemes::AnyLink;

/// The services that answer gRPC requests: to begin with the session service, whose streams are
/// sessions of the server's handler, the standard health service, which says "not serving" from the
/// beginning of a shutdown, and reflection.
///
/// ```no_run
/// # async fn example() -> network_system_core::Result<()> {
/// use network_system_core::ServerBuilder;
/// use network_system_transports::Schemes;
/// use network_system_transports::grpc::{Grpc, ServeGrpc};
///
/// // .service(GreeterServer::new(…)).descriptors(greeter::FILE_DESCRIPTOR_SET)
/// let server = ServerBuilder::new(Schemes::default())
///     .listen("http://127.0.0.1:8080")
///     .grpc(Grpc::new())
///     .start()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Grpc {
    routes: RoutesBuilder,
    descriptors: Vec<&'static [u8]>,
    names: Vec<&'static str>,
    sessions: bool,
    compress: bool,
}

impl Default for Grpc {
    fn default() -> Self {
        Self::new()
    }
}

impl Grpc {
    /// The session service, health and reflection.
    #[must_use]
    pub fn new() -> Self {
        Self {
            routes: RoutesBuilder::default(),
            descriptors: Vec::new(),
            names: Vec::new(),
            sessions: true,
            compress: false,
        }
    }

    /// Adds a service, as tonic generates it. Its own settings hold, such as the largest message (tonic's
    /// default is 4 MiB); deadlines of clients (`grpc-timeout`) are kept for it.
    #[must_use]
    pub fn service<S>(mut self, service: S) -> Self
    where
        S: Service<
                Request<tonic::body::Body>,
                Response = Response<tonic::body::Body>,
                Error = Infallible,
            > + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self.names.push(S::NAME);
        self
    }

    /// Adds a `FileDescriptorSet` to what reflection tells.
    #[must_use]
    pub fn descriptors(mut self, set: &'static [u8]) -> Self {
        self.descriptors.push(set);
        self
    }

    /// Whether there is the session service. Default: yes.
    #[must_use]
    pub fn sessions(mut self, on: bool) -> Self {
        self.sessions = on;
        self
    }

    /// Whether messages of sessions are compressed for clients that accept it (zstd, gzip); what clients
    /// compress is always taken. Default: no.
    #[must_use]
    pub fn compress(mut self, on: bool) -> Self {
        self.compress = on;
        self
    }

    /// What a listener answers with, where a message has `max_message` bytes at most.
    pub(crate) fn build(&self, max_message: usize) -> Result<GrpcService> {
        let mut routes = self.routes.clone();
        let mut descriptors = vec![tonic_health::pb::FILE_DESCRIPTOR_SET];
        descriptors.extend(&self.descriptors);
        descriptors.extend(self.sessions.then_some(DESCRIPTORS));
        let reflection = || {
            let configure = tonic_reflection::server::Builder::configure();
            let register = |builder: tonic_reflection::server::Builder<'static>,
                            set: &&'static [u8]| {
                builder.register_encoded_file_descriptor_set(set)
            };
            descriptors.iter().fold(configure, register)
        };
        let (health, health_service) = tonic_health::server::health_reporter();
        let mut names = self.names.clone();
        if self.sessions {
            let mut sessions = SessionServiceServer::new(Sessions)
                // the field around a message, and the envelope
                .max_decoding_message_size(max_message.saturating_add(64))
                .max_encoding_message_size(usize::MAX)
                .accept_compressed(CompressionEncoding::Zstd)
                .accept_compressed(CompressionEncoding::Gzip);
            if self.compress {
                sessions = sessions
                    .send_compressed(CompressionEncoding::Zstd)
                    .send_compressed(CompressionEncoding::Gzip);
            }
            names.push(<SessionServiceServer<Sessions> as NamedService>::NAME);
            routes.add_service(sessions);
        }
        routes.add_service(health_service);
        let wrong = |error: tonic_reflection::server::Error| {
            Error::new(ErrorKind::InvalidArgument, "describe the services of gRPC")
                .because(error)
                .advice("give `descriptors` an encoded FileDescriptorSet")
        };
        // many clients know the older version only
        routes.add_service(reflection().build_v1alpha().map_err(wrong)?);
        routes.add_service(reflection().build_v1().map_err(wrong)?);
        Ok(GrpcService {
            routes: routes.routes().prepare(),
            health: Arc::new(Health {
                reporter: health,
                names,
                told: OnceCell::new(),
            }),
        })
    }
}

impl fmt::Debug for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grpc").finish_non_exhaustive()
    }
}

/// Whether a request is one of gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    content.is_some_and(|content| content.starts_with(b"application/grpc"))
}

/// What a listener answers gRPC requests with. Clones mean the same.
#[derive(Clone)]
pub(crate) struct GrpcService {
    routes: Routes,
    health: Arc<Health>,
}

/// Says that all is well until a shutdown begins.
struct Health {
    reporter: tonic_health::server::HealthReporter,
    names: Vec<&'static str>,
    told: OnceCell<()>,
}

impl Health {
    async fn set(&self, status: tonic_health::ServingStatus) {
        for name in self.names.iter().chain(&[""]) {
            self.reporter.set_service_status(*name, status).await;
        }
    }

    /// Looks after the status from the first request on.
    async fn watch(self: &Arc<Self>, connection: &HttpConnection) {
        let tell = async {
            self.set(tonic_health::ServingStatus::Serving).await;
            let (health, stopping) = (self.clone(), connection.host().stopping());
            tokio::spawn(async move {
                stopping.await;
                health.set(tonic_health::ServingStatus::NotServing).await;
            });
        };
        // requests that come meanwhile wait, and if this one is given up, the next one tells
        self.told.get_or_init(|| tell).await;
    }
}

impl GrpcService {
    pub(crate) async fn answer(
        &self,
        request: Request<RequestBody>,
        connection: &HttpConnection,
    ) -> Response<ResponseBody> {
        self.health.watch(connection).await;
        let deadline = timeout(request.headers());
        let answer = self.routes.clone().oneshot(request);
        let answer = match deadline {
            None => answer.await,
            Some(deadline) => match tokio::time::timeout(deadline, answer).await {
                Ok(answer) => answer,
                Err(_) => Ok(
                    Status::deadline_exceeded("the deadline of the request has passed").into_http(),
                ),
            },
        };
        match answer {
            Ok(response) => response.map(boxed),
            Err(never) => match never {},
        }
    }
}

/// The client's deadline: digits and a unit (the gRPC protocol over HTTP/2, `grpc-timeout`).
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

/// The session service.
struct Sessions;

#[tonic::async_trait]
impl SessionService for Sessions {
    type ConnectStream = Outgoing;

    async fn connect(
        &self,
        request: tonic::Request<Streaming<Message>>,
    ) -> std::result::Result<tonic::Response<Outgoing>, Status> {
        let envelope = request
            .metadata()
            .get(ENVELOPE)
            .is_some_and(|on| on == "true");
        let connection = request.extensions().get::<HttpConnection>().cloned();
        let connection = connection.ok_or_else(|| Status::internal("no connection"))?;
        let wanted = connection.host().session_config().envelope;
        if envelope != wanted {
            let with = if wanted { "with" } else { "without" };
            return Err(Status::failed_precondition(format!(
                "this server speaks {with} the envelope (metadata {ENVELOPE})"
            )));
        }
        let mut info = connection.info().clone();
        info.scheme = if info.tls.is_some() { "grpcs" } else { "grpc" };
        info.envelope = envelope;
        let (sender, batches) = mpsc::channel(1);
        let link = GrpcLink::new(
            info,
            Incoming::Streaming(Box::new(request.into_inner())),
            sender,
        );
        match connection.host().introduce(AnyLink::Grpc(Box::new(link))) {
            Ok(_) => Ok(tonic::Response::new(Outgoing::new(batches))),
            Err(error) if error.kind() == ErrorKind::QueueFull => {
                Err(Status::resource_exhausted(error.to_string()))
            }
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }
}

/// The messages of a session on their way out.
pub(super) struct Outgoing {
    batches: ReceiverStream<Batch>,
    batch: std::vec::IntoIter<Message>,
}

impl Outgoing {
    pub(super) fn new(batches: mpsc::Receiver<Batch>) -> Self {
        Self {
            batches: ReceiverStream::new(batches),
            batch: Vec::new().into_iter(),
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        loop {
            if let Some(message) = self.batch.next() {
                return Poll::Ready(Some(message));
            }
            match std::task::ready!(Pin::new(&mut self.batches).poll_next(cx)) {
                Some(batch) => self.batch = batch.into_iter(),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Stream for Outgoing {
    type Item = std::result::Result<Message, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(cx).map(|message| message.map(Ok))
    }
}

/// The same for a client, whose request has no errors in it.
pub(super) struct Asking(pub(super) Outgoing);

impl Stream for Asking {
    type Item = Message;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.get_mut().0.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_of_clients() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", http::HeaderValue::from_static(text));
            timeout(&headers)
        };
        assert_eq!(of("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(of("10m"), Some(Duration::from_millis(10)));
        assert_eq!(of("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "S", "1", "1X", "-1S", "+1S", "100000000S", "1 S"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
