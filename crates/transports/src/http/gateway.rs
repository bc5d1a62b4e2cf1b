//! The message gateway, with which curl is a client: a `POST` is a message to the server's handler, and
//! its answers are the body of the reply; a `GET` is a session whose messages are events
//! (`text/event-stream`), to which later `POST`s can belong. [`Gateway`].

mod events;
mod link;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use network_system_core::{CloseReason, Message, MessageKind, Session};
use tokio::sync::mpsc;

use super::body::RequestBody;
use super::service::{full, plain};
use super::{HttpConnection, ResponseBody};
use crate::schemes::AnyLink;
use events::{Bodies, Events};
pub use link::GatewayLink;

/// Names the session that a `POST` belongs to; `?session=` does the same.
const SESSION: HeaderName = HeaderName::from_static("netsys-session");
/// Messages between a session and the body of an answer; more wait in the session's outbox.
const AHEAD: usize = 16;

/// Maps requests of one path to sessions.
pub(super) struct Gateway {
    path: String,
    /// Sessions of event streams, by the secret that their clients know.
    open: Arc<Open>,
}

type Senders = HashMap<String, mpsc::Sender<Message>>;

/// Takes messages for the sessions of event streams.
#[derive(Default)]
struct Open(Mutex<Senders>);

impl Open {
    fn lock(&self) -> MutexGuard<'_, Senders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session of an event stream, which ends with the stream.
struct Opened {
    open: Arc<Open>,
    secret: String,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let sender = self.open.lock().remove(&self.secret);
        drop(sender);
    }
}

impl Gateway {
    pub(super) fn new(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            open: Arc::default(),
        }
    }

    /// Whether a request is for it.
    pub(super) fn is_for(&self, uri: &Uri) -> bool {
        uri.path() == self.path
    }

    pub(super) async fn answer(
        &self,
        request: Request<RequestBody>,
        connection: &HttpConnection,
    ) -> Response<ResponseBody> {
        if is_foreign(request.headers()) {
            return plain(StatusCode::FORBIDDEN);
        }
        match *request.method() {
            Method::POST => self.post(request, connection).await,
            Method::GET => self.stream(connection),
            _ => with(
                plain(StatusCode::METHOD_NOT_ALLOWED),
                ALLOW,
                HeaderValue::from_static("GET, POST"),
            ),
        }
    }

    /// A message: to the session that the request names, or to one of its own.
    async fn post(
        &self,
        request: Request<RequestBody>,
        connection: &HttpConnection,
    ) -> Response<ResponseBody> {
        let session = session_of(&request);
        let events = wants_events(request.headers());
        let message = match message(request, connection.info().max_message).await {
            Ok(message) => message,
            Err(status) => return plain(status),
        };
        match session {
            Some(secret) => {
                let sender = self.open.lock().get(&secret).cloned();
                let sent = match sender {
                    // waits as long as the handler does not take what came before
                    Some(sender) => sender.send(message).await.is_ok(),
                    None => false,
                };
                plain(if sent {
                    StatusCode::ACCEPTED
                } else {
                    StatusCode::NOT_FOUND
                })
            }
            None => ask(message, connection, events).await,
        }
    }

    /// A session that lasts as long as the body of the answer.
    fn stream(&self, connection: &HttpConnection) -> Response<ResponseBody> {
        let mut bytes = [0; 16];
        if getrandom::fill(&mut bytes).is_err() {
            return plain(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let secret = format!("{:032x}", u128::from_ne_bytes(bytes));
        let (sender, incoming) = mpsc::channel(1);
        let (outgoing, answers) = mpsc::channel(AHEAD);
        // before the handler can send anything
        self.open.lock().insert(secret.clone(), sender);
        let opened = Opened {
            open: self.open.clone(),
            secret: secret.clone(),
        };
        if let Err(response) =
            introduce(connection, GatewayLink::new(connection, incoming, outgoing))
        {
            return *response;
        }
        let interval = connection.host().session_config().heartbeat.interval;
        let events = Events::new(answers, interval)
            .greeting(&secret)
            .holding(opened);
        let response = event_stream(events);
        match HeaderValue::from_str(&secret) {
            Ok(value) => with(response, SESSION, value),
            Err(_) => response,
        }
    }
}

/// A session of one message; what its handler answers is the reply.
async fn ask(
    message: Message,
    connection: &HttpConnection,
    events: bool,
) -> Response<ResponseBody> {
    let (sender, incoming) = mpsc::channel(1);
    let (outgoing, mut answers) = mpsc::channel(AHEAD);
    // there is room
    let _ = sender.try_send(message);
    drop(sender);
    let link = GatewayLink::new(connection, incoming, outgoing);
    let session = match introduce(connection, link) {
        Ok(session) => session,
        Err(response) => return *response,
    };
    if events {
        let interval = connection.host().session_config().heartbeat.interval;
        return event_stream(Events::new(answers, interval));
    }
    let Some(first) = answers.recv().await else {
        return plain_or_empty(session.close_reason());
    };
    let content = match first.kind() {
        MessageKind::Text => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    let body = match answers.recv().await {
        None => full(first.into_bytes()),
        Some(second) => Bodies::new([first, second], answers).boxed_unsync(),
    };
    with(
        Response::new(body),
        CONTENT_TYPE,
        HeaderValue::from_static(content),
    )
}

/// What a session that has not sent anything is answered with.
fn plain_or_empty(reason: Option<CloseReason>) -> Response<ResponseBody> {
    let status = match reason {
        Some(CloseReason::Handler(_) | CloseReason::Panicked) => StatusCode::INTERNAL_SERVER_ERROR,
        Some(CloseReason::Refused(_)) => StatusCode::FORBIDDEN,
        Some(CloseReason::Rate) => StatusCode::TOO_MANY_REQUESTS,
        Some(CloseReason::Shutdown | CloseReason::Cut) => StatusCode::SERVICE_UNAVAILABLE,
        _ => {
            let mut empty = Response::new(full(""));
            *empty.status_mut() = StatusCode::NO_CONTENT;
            return empty;
        }
    };
    plain(status)
}

fn introduce(
    connection: &HttpConnection,
    link: GatewayLink,
) -> Result<Session, Box<Response<ResponseBody>>> {
    let link = AnyLink::Gateway(Box::new(link));
    connection.host().introduce(link).map_err(|error| {
        tracing::debug!(%error, "refused");
        let refused = plain(StatusCode::SERVICE_UNAVAILABLE);
        Box::new(with(refused, RETRY_AFTER, HeaderValue::from_static("1")))
    })
}

fn event_stream(events: Events) -> Response<ResponseBody> {
    let response = Response::new(events.boxed_unsync());
    let response = with(
        response,
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    with(
        response,
        CACHE_CONTROL,
        HeaderValue::from_static("no-store"),
    )
}

fn with(
    mut response: Response<ResponseBody>,
    name: HeaderName,
    value: HeaderValue,
) -> Response<ResponseBody> {
    response.headers_mut().insert(name, value);
    response
}

/// Whether a page of another site asks: browsers let it send such requests, and say from where.
fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    let origin = origin.to_str().unwrap_or_default();
    let host = origin.split_once("://").map(|(_, host)| host);
    let ours = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.is_none() || host != ours
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/event-stream"))
}

/// The secret of the session that a request names.
fn session_of<B>(request: &Request<B>) -> Option<String> {
    let header = request.headers().get(SESSION);
    if let Some(header) = header {
        return Some(header.to_str().unwrap_or_default().to_owned());
    }
    let pairs = request.uri().query().unwrap_or_default().split('&');
    let mut values = pairs.filter_map(|pair| pair.strip_prefix("session="));
    values.next().map(str::to_owned)
}

/// The body of a request as a message.
async fn message(request: Request<RequestBody>, most: usize) -> Result<Message, StatusCode> {
    let content = request.headers().get(CONTENT_TYPE);
    let content = content
        .and_then(|content| content.to_str().ok())
        .unwrap_or_default();
    let is_text = [
        "text/",
        "application/json",
        "application/x-www-form-urlencoded",
    ]
    .iter()
    .any(|text| content.starts_with(text));
    let body = http_body_util::Limited::new(request.into_body(), most);
    let bytes = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        Err(_) => return Err(StatusCode::BAD_REQUEST),
    };
    let text = is_text && std::str::from_utf8(&bytes).is_ok();
    let kind = if text {
        MessageKind::Text
    } else {
        MessageKind::Binary
    };
    Ok(Message::from(bytes).with_kind(kind))
}
