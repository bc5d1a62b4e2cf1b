//! A server's part in the handshake: [`upgrade`], for requests that some HTTP server has read, and the
//! listeners' own, on hyper.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{
    ALLOW, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use network_system_core::config::{ENVELOPE_SUBPROTOCOL, LinkConfig};
use network_system_core::{Error, ErrorKind, HttpInfo, LinkInfo, Result};
use sockudo_ws::deflate::DeflateConfig;
use sockudo_ws::handshake::generate_accept_key;
use sockudo_ws::protocol::Role;

use super::carrier::Carrier;
use super::link::WebSocketLink;
use super::{deflate, origin};

/// A request that does not become a WebSocket.
#[derive(Debug)]
pub struct Refused {
    /// What the client is to be answered.
    pub response: Response<String>,
    /// The same, for the server.
    pub error: Error,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// What becomes a link once the answer has been sent.
pub type Upgrading = Pin<Box<dyn Future<Output = Result<WebSocketLink<Carrier>>> + Send>>;

/// Whether a request asks for a WebSocket, well or not: what [`upgrade`] is for.
#[must_use]
pub fn is_upgrade<B>(request: &Request<B>) -> bool {
    has_token(request.headers(), UPGRADE, "websocket")
}

/// Makes a WebSocket of a request (RFC 6455 section 4.2) that an HTTP server on hyper has read: the
/// answer that it is to be given, and the link that comes after it. The connection must be served
/// `with_upgrades()`.
///
/// `config` has all settings, those of the session included; `info` is what the HTTP server knows about
/// the connection. What the request says is added to it.
///
/// The future ends when the answer has been sent; who waits for it sets a deadline.
///
/// ```
/// use http::{Request, Response};
/// use hyper::body::Incoming;
/// use network_system_core::LinkInfo;
/// use network_system_core::config::LinkConfig;
/// use network_system_transports::websocket;
///
/// fn serve(mut request: Request<Incoming>, config: &LinkConfig, info: LinkInfo) -> Response<String> {
///     match websocket::upgrade(&mut request, config, info) {
///         Ok((response, link)) => {
///             tokio::spawn(async move {
///                 if let Ok(link) = link.await {
///                     // for example, a `Connection` over the link
///                 }
///             });
///             response
///         }
///         Err(refused) => refused.response,
///     }
/// }
/// ```
///
/// # Errors
/// What is wrong with the request: 400, 403 for an origin that may not connect, 405 for another
/// method, 426 for what is no WebSocket, or one of another version.
pub fn upgrade<B>(
    request: &mut Request<B>,
    config: &LinkConfig,
    info: LinkInfo,
) -> Result<(Response<String>, Upgrading), Box<Refused>> {
    let (response, agreed) = agree(request, config, info)?;
    let upgraded = hyper::upgrade::on(request);
    let link = Box::pin(async move {
        let peer = agreed.info.peer.clone();
        let upgraded = upgraded.await.map_err(|error| failed(error).peer(peer))?;
        Ok(agreed.link(TokioIo::new(upgraded).into(), &[]))
    });
    Ok((response, link))
}

/// What both sides have agreed on.
pub(super) struct Agreed {
    info: LinkInfo,
    deflate: Option<DeflateConfig>,
}

impl Agreed {
    fn link(self, io: Carrier, first: &[u8]) -> WebSocketLink<Carrier> {
        WebSocketLink::new(io, Role::Server, self.info, self.deflate, first)
    }
}

/// Looks at a request and makes the answer.
fn agree<B>(
    request: &Request<B>,
    config: &LinkConfig,
    mut info: LinkInfo,
) -> Result<(Response<String>, Agreed), Box<Refused>> {
    let headers = request.headers();
    check(request).map_err(|(status, why)| refuse(status, why, &info))?;
    let settings = &config.websocket;
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    if !origin::allows(&settings.origins, headers, authority) {
        let why = "pages of this origin may not connect";
        return Err(refuse(StatusCode::FORBIDDEN, why, &info));
    }
    let subprotocol =
        subprotocol(config, headers).map_err(|why| refuse(StatusCode::BAD_REQUEST, why, &info))?;
    let offers = list(headers, SEC_WEBSOCKET_EXTENSIONS);
    let deflate = settings.deflate.as_ref();
    let deflate = deflate.and_then(|settings| deflate::choose(&offers, settings));
    let extensions = deflate.as_ref().map(|agreed| agreed.to_response_header());

    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .and_then(|key| key.to_str().ok());
    let accept = generate_accept_key(key.unwrap_or_default());
    let mut answer = Response::new(String::new());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = answer.headers_mut();
    fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    for (name, value) in [
        (SEC_WEBSOCKET_ACCEPT, Some(&accept)),
        (SEC_WEBSOCKET_PROTOCOL, subprotocol.as_ref()),
        (SEC_WEBSOCKET_EXTENSIONS, extensions.as_ref()),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            fields.insert(name, value);
        }
    }
    let mut known = HttpInfo::default();
    known.path = request.uri().path().to_owned();
    known.query = request.uri().query().map(str::to_owned);
    known.headers = super::fields(headers);
    known.subprotocol = subprotocol;
    known.extensions = extensions;
    info.http = Some(Arc::new(known));
    let deflate = deflate.map(|agreed| agreed.config);
    Ok((answer, Agreed { info, deflate }))
}

/// Whether a request is a handshake of WebSocket.
fn check<B>(request: &Request<B>) -> Result<(), (StatusCode, &'static str)> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err((
            StatusCode::METHOD_NOT_ALLOWED,
            "a WebSocket begins with GET",
        ));
    }
    let is_websocket = is_upgrade(request) && has_token(headers, CONNECTION, "upgrade");
    if request.version() != Version::HTTP_11 || !is_websocket {
        return Err((
            StatusCode::UPGRADE_REQUIRED,
            "here is a WebSocket, and nothing else",
        ));
    }
    if one(headers, SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err((
            StatusCode::UPGRADE_REQUIRED,
            "only version 13 of WebSocket is spoken",
        ));
    }
    // 16 bytes in base64
    let is_key = |key: &str| {
        let bytes = key.strip_suffix("==").unwrap_or_default().as_bytes();
        let known = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
        bytes.len() == 22 && bytes.iter().all(known)
    };
    match one(headers, SEC_WEBSOCKET_KEY) {
        Some(key) if is_key(key) => Ok(()),
        _ => Err((
            StatusCode::BAD_REQUEST,
            "the key of the handshake is missing or wrong",
        )),
    }
}

/// The subprotocol to speak.
fn subprotocol(config: &LinkConfig, headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    let offers = list(headers, SEC_WEBSOCKET_PROTOCOL);
    let offered = |name: &str| offers.split(',').any(|offer| offer.trim() == name);
    if config.session.envelope {
        return match offered(ENVELOPE_SUBPROTOCOL) {
            true => Ok(Some(ENVELOPE_SUBPROTOCOL.to_owned())),
            false => Err("the subprotocol envelope.network-system is needed"),
        };
    }
    let mut ours = config.websocket.subprotocols.iter();
    Ok(ours.find(|name| offered(name)).cloned())
}

/// The only field of this name.
fn one(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| value.trim())
}

/// The values of all fields of this name, which has lists.
fn list(headers: &HeaderMap, name: HeaderName) -> String {
    let values = headers.get_all(name).iter();
    let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

pub(super) fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    list(headers, name)
        .split(',')
        .any(|one| one.trim().eq_ignore_ascii_case(token))
}

#[cold]
fn refuse(status: StatusCode, why: &str, info: &LinkInfo) -> Box<Refused> {
    let kind = match status {
        StatusCode::FORBIDDEN => ErrorKind::PermissionDenied,
        _ => ErrorKind::Handshake,
    };
    let error = Error::new(kind, "do the WebSocket handshake with")
        .peer(&info.peer)
        .because(format_args!("{why} (answered {})", status.as_u16()));
    let mut response = Response::new(format!("{why}\n"));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    match status {
        StatusCode::UPGRADE_REQUIRED => {
            fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
            fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            fields.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            fields.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        _ => {}
    }
    Box::new(Refused { response, error })
}

fn failed(error: hyper::Error) -> Error {
    Error::new(ErrorKind::Handshake, "do the WebSocket handshake with")
        .because(&error)
        .caused_by(error)
}

/// What the service of a listener leaves behind.
#[derive(Default)]
struct Outcome {
    agreed: Option<(Agreed, hyper::upgrade::OnUpgrade)>,
    error: Option<Error>,
}

/// Reads the request on a stream that was accepted, and answers it.
pub(super) async fn accept(
    io: Carrier,
    info: LinkInfo,
    config: &Arc<LinkConfig>,
    path: &str,
) -> Result<WebSocketLink<Carrier>> {
    let peer = info.peer.clone();
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let service = service_fn(|mut request: Request<Incoming>| {
        let response = answer(&mut request, config, info.clone(), path, &outcome);
        async move { Ok::<_, Infallible>(response) }
    });
    let settings = &config.websocket;
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(settings.max_header_bytes)
        .max_headers(settings.max_headers)
        // the engine has a deadline for the whole handshake
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let result = connection.await;
    let Outcome { agreed, error } =
        std::mem::take(&mut *outcome.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(error) = error {
        return Err(error);
    }
    result.map_err(|error| failed(error).peer(&peer))?;
    let Some((agreed, upgraded)) = agreed else {
        return Err(
            Error::new(ErrorKind::Handshake, "do the WebSocket handshake with")
                .peer(&peer)
                .because("the peer has closed without a request"),
        );
    };
    let upgraded = upgraded.await.map_err(|error| failed(error).peer(&peer))?;
    let (io, first) = super::inner(upgraded)?;
    Ok(agreed.link(io, &first))
}

/// What a listener answers.
fn answer(
    request: &mut Request<Incoming>,
    config: &LinkConfig,
    info: LinkInfo,
    path: &str,
    outcome: &Mutex<Outcome>,
) -> Response<String> {
    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    let agreed = if path.len() > 1 && request.uri().path() != path {
        Err(refuse(
            StatusCode::NOT_FOUND,
            "nothing is at this path",
            &info,
        ))
    } else {
        agree(request, config, info)
    };
    match agreed {
        Ok((response, agreed)) => {
            outcome.agreed = Some((agreed, hyper::upgrade::on(request)));
            response
        }
        Err(refused) => {
            let Refused {
                mut response,
                error,
            } = *refused;
            // for some reason to be read before it is closed
            response
                .headers_mut()
                .entry(CONNECTION)
                .or_insert(HeaderValue::from_static("close"));
            outcome.error = Some(error);
            response
        }
    }
}
