//! What is around the answer to each request: limits, statistics, the access log. [`Answering`].

use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use tower::ServiceExt;

use super::body::{Beyond, RequestBody, Watched};
use super::life::{Head, Life};
use super::link::Serving;
use super::{HttpConnection, ResponseBody};

/// Answers the requests of one connection.
pub(super) struct Answering {
    connection: HttpConnection,
    life: Arc<Life>,
    serving: Arc<Serving>,
}

impl Answering {
    pub(super) fn new(connection: HttpConnection, life: Arc<Life>, serving: Arc<Serving>) -> Self {
        Self {
            connection,
            life,
            serving,
        }
    }

    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Watched>, Infallible> {
        let head = Head {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
        };
        let mut exchange = self.life.begin(self.connection.clone(), head);
        let version = request.version();
        let mut response = match self.refuse(&request) {
            Some(status) => plain(status),
            None => self.route(request).await,
        };
        // what becomes a WebSocket is no HTTP connection any more, and its session says farewell
        let stays = response.status() != StatusCode::SWITCHING_PROTOCOLS;
        if stays && self.connection.host().is_draining() && version < Version::HTTP_2 {
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        exchange.answered(response.status());
        Ok(response.map(|body| Watched::new(body, exchange)))
    }

    /// What must not be answered in any other way.
    fn refuse(&self, request: &Request<Incoming>) -> Option<StatusCode> {
        let config = &self.serving.config.http;
        if request.headers().len() > config.max_header_fields {
            return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        let hosts = request.headers().get_all(HOST).iter().count();
        // RFC 9112, section 3.2
        let needs_host = request.version() == Version::HTTP_11;
        if hosts > 1 || (hosts == 0 && needs_host) {
            return Some(StatusCode::BAD_REQUEST);
        }
        let announced = request.body().size_hint().lower();
        if announced > config.max_body as u64 {
            return Some(StatusCode::PAYLOAD_TOO_LARGE);
        }
        None
    }

    /// The answer to a request that is to become a WebSocket, where that begins a session.
    #[cfg(feature = "websocket")]
    fn websocket(&self, request: &mut Request<RequestBody>) -> Option<Response<ResponseBody>> {
        use crate::websocket;

        let config = &self.serving.config;
        let path = config.http.websocket.as_deref()?;
        let here = path == "*" || path == request.uri().path();
        if !here || !websocket::is_upgrade(request) {
            return None;
        }
        let mut info = self.connection.info().clone();
        info.scheme = if info.tls.is_some() { "wss" } else { "ws" };
        info.envelope = config.session.envelope;
        match websocket::upgrade(request, config, info) {
            Ok((response, upgrading)) => {
                let host = self.connection.host().clone();
                let deadline = config.http.header_timeout;
                self.connection.host().spawn(async move {
                    match tokio::time::timeout(deadline, upgrading).await {
                        Ok(Ok(link)) => {
                            let link = crate::AnyLink::WebSocket(Box::new(link));
                            if let Err(error) = host.hand_over(link) {
                                tracing::debug!(%error, "no session for a WebSocket");
                            }
                        }
                        Ok(Err(error)) => tracing::debug!(%error, "no WebSocket"),
                        Err(_) => tracing::debug!("no WebSocket in time"),
                    }
                });
                Some(response.map(full))
            }
            Err(refused) => {
                tracing::debug!(error = %refused.error, "refused");
                Some(refused.response.map(full))
            }
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let config = &self.serving.config.http;
        let beyond = Arc::<Beyond>::default();
        let mut request = request.map(|body| {
            RequestBody::new(body, config.max_body, config.body_timeout, beyond.clone())
        });
        request.extensions_mut().insert(self.connection.clone());
        #[cfg(feature = "grpc")]
        if let Some(grpc) = &self.serving.grpc
            && crate::grpc::is_grpc(request.headers())
        {
            // its messages have limits of their own, and a stream may be as long and as slow as it is
            request.body_mut().unlimit();
            return contain(async { Ok(grpc.answer(request, &self.connection).await) }).await;
        }
        #[cfg(feature = "websocket")]
        if let Some(response) = self.websocket(&mut request) {
            return response;
        }
        // what begins sessions goes before what the user serves
        let response = match &self.serving.gateway {
            Some(gateway) if gateway.is_for(request.uri()) => {
                gateway.answer(request, &self.connection).await
            }
            _ => match self.serving.service.clone() {
                Some(service) => contain(service.oneshot(request)).await,
                None => plain(StatusCode::NOT_FOUND),
            },
        };
        match beyond.status() {
            Some(status) => plain(status),
            None => response,
        }
    }
}

/// The answer of a service, also where that panics.
async fn contain(
    service: impl Future<Output = Result<Response<ResponseBody>, Infallible>>,
) -> Response<ResponseBody> {
    let mut service = pin!(service);
    poll_fn(|cx| {
        let poll = || service.as_mut().poll(cx);
        match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(response))) => Poll::Ready(response),
            Ok(Poll::Ready(Err(never))) => match never {},
            Err(_) => {
                tracing::error!("the service that answers HTTP requests panicked");
                Poll::Ready(plain(StatusCode::INTERNAL_SERVER_ERROR))
            }
        }
    })
    .await
}

/// An answer that says what its status means.
pub(super) fn plain(status: StatusCode) -> Response<ResponseBody> {
    let text = format!("{status}\n");
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.remove(CONTENT_LENGTH);
    response
}

/// A body of these bytes.
pub(super) fn full(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}
