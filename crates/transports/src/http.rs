//! HTTP/1.1 and HTTP/2: `http://host:port`, and `https://host:port` with TLS. hyper does the protocol;
//! this puts the server's limits, statistics and shutdown around it, and lets sessions begin on its
//! connections.
//!
//! | File | What it does |
//! |---|---|
//! | `link.rs` | the connection as the server sees it, and listeners for it |
//! | `connection.rs` | the life of one connection: hyper, deadlines, the shutdown |
//! | `life.rs` | what is known of a connection and its requests while they last |
//! | `io.rs` | the stream under hyper, whose bytes are counted |
//! | `service.rs` | what is around the answer to each request: limits, statistics, the access log |
//! | `gateway.rs`, `gateway/` | messages as bodies of requests and answers, so that curl is a client |
//! | `client.rs`, `client/` | a client: reqwest, with deadlines, retries, breakers and our errors |
//! | `body.rs` | the bodies of requests, with their limits, and of answers, which are watched |

mod body;
mod client;
mod connection;
mod gateway;
mod io;
mod life;
mod link;
mod service;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use network_system_core::config::LinkConfig;
use network_system_core::{
    Address, Endpoint, Error, ErrorKind, Host, LinkInfo, Result, ServerBuilder,
};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};
use tower_http::compression::CompressionLayer;

use crate::schemes::{AnyLink, Schemes};
pub use body::RequestBody;
pub use client::{HttpCall, HttpClient, HttpClientConfig, HttpResponse};
pub use gateway::GatewayLink;
pub(crate) use io::Stream;
pub(crate) use link::Serving;
pub use link::{HttpBound, HttpLink, HttpListener};

/// Any error, as services and bodies have them.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// What answers requests.
pub(crate) type HttpService =
    BoxCloneSyncService<http::Request<RequestBody>, http::Response<ResponseBody>, Infallible>;

/// What is served where HTTP is spoken. Clones mean the same.
#[derive(Clone, Default)]
pub(crate) struct Http {
    /// The user's.
    service: Option<HttpService>,
    #[cfg(feature = "grpc")]
    grpc: Option<crate::grpc::Grpc>,
}

impl Http {
    /// Whether this build has HTTP.
    pub(crate) const IS_THERE: bool = true;

    /// What the connections of a listener share, and the settings of what is below them.
    pub(crate) fn accept(
        &self,
        address: &Address,
        config: &LinkConfig,
    ) -> Result<(Arc<Serving>, LinkConfig)> {
        if config.session.pipeline.is_some() {
            let error = Error::new(ErrorKind::InvalidArgument, "listen on").peer(address);
            return Err(error
                .because("messages over HTTP cannot have a pipeline")
                .advice("use https, and ?pipeline=false where a pipeline is set for all"));
        }
        let mut config = config.clone();
        if self.is_for_all(address) && config.http.websocket.is_none() {
            Arc::make_mut(&mut config.http).websocket = Some("*".to_owned());
        }
        let config = &config;
        let mut below = config.clone();
        let tls = Arc::make_mut(&mut below.tls_server);
        if tls.alpn.is_empty() {
            tls.alpn = vec!["h2".to_owned(), "http/1.1".to_owned()];
        }
        #[cfg(feature = "grpc")]
        let serving = Serving::new(self, config, self.grpc(address, config)?);
        #[cfg(not(feature = "grpc"))]
        let serving = Serving::new(self, config);
        Ok((serving, below))
    }

    /// What answers gRPC requests to a listener, where it has that.
    #[cfg(feature = "grpc")]
    fn grpc(
        &self,
        address: &Address,
        config: &LinkConfig,
    ) -> Result<Option<crate::grpc::GrpcService>> {
        let always = matches!(address.scheme(), "grpc" | "grpcs")
            || config.http.grpc
            || self.is_for_all(address);
        let default = || always.then(crate::grpc::Grpc::new);
        let grpc = self.grpc.clone().or_else(default);
        grpc.map(|grpc| grpc.build(config.session.max_message))
            .transpose()
    }

    /// Whether a listener has every protocol: where all are expected, and no service has its own ideas.
    fn is_for_all(&self, address: &Address) -> bool {
        address.scheme() == "auto" && self.service.is_none()
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn set_grpc(&mut self, grpc: crate::grpc::Grpc) {
        self.grpc = Some(grpc);
    }

    fn set<S, B>(&mut self, service: S)
    where
        S: Service<http::Request<RequestBody>, Response = http::Response<B>>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.service = Some(BoxCloneSyncService::new(tower::service_fn(
            move |request: http::Request<RequestBody>| {
                let service = service.clone();
                async move {
                    Ok(match service.oneshot(request).await {
                        Ok(response) => {
                            response.map(|body| body.map_err(Into::into).boxed_unsync())
                        }
                        Err(error) => {
                            let error: BoxError = error.into();
                            tracing::error!(%error, "the service that answers HTTP requests failed");
                            service::plain(http::StatusCode::INTERNAL_SERVER_ERROR)
                        }
                    })
                }
            },
        )));
    }

    /// What a listener with these settings answers with.
    fn service(&self, config: &LinkConfig) -> Option<HttpService> {
        let service = self.service.clone()?;
        if !config.http.compression {
            return Some(service);
        }
        let service = CompressionLayer::new().layer(service);
        let service = service.map_response(|response: http::Response<_>| {
            response.map(|body| BodyExt::map_err(body, Into::into).boxed_unsync())
        });
        Some(BoxCloneSyncService::new(service))
    }
}

/// Any body as that of an answer.
#[cfg(feature = "grpc")]
pub(crate) fn boxed<B>(body: B) -> ResponseBody
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

/// What HTTP adds to the builder of a server.
pub trait ServeHttp: Sized {
    /// Answers HTTP requests with `service`: an axum `Router`, or any other service of tower. It is for
    /// addresses such as `http://0.0.0.0:8080` and `https://0.0.0.0:8443`, with the server's limits,
    /// TLS, statistics and shutdown. Requests have [`HttpConnection`] among their extensions. Default:
    /// none, and every request is answered with 404.
    #[must_use]
    fn http<S, B>(self, service: S) -> Self
    where
        S: Service<http::Request<RequestBody>, Response = http::Response<B>>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>;
}

impl<H> ServeHttp for ServerBuilder<Schemes, H> {
    fn http<S, B>(mut self, service: S) -> Self
    where
        S: Service<http::Request<RequestBody>, Response = http::Response<B>>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.transports_mut().http.set(service);
        self
    }
}

/// What a request knows of the connection that it has come on. Every request has it among its
/// extensions: with axum, `Extension(connection): Extension<HttpConnection>`.
#[derive(Clone, Debug)]
pub struct HttpConnection(Arc<OnConnection>);

#[derive(Debug)]
struct OnConnection {
    info: LinkInfo,
    config: LinkConfig,
    host: Host<AnyLink>,
}

impl HttpConnection {
    /// The client, both ends, and TLS.
    #[must_use]
    pub fn info(&self) -> &LinkInfo {
        &self.0.info
    }

    /// The client.
    #[must_use]
    pub fn peer(&self) -> &Endpoint {
        &self.0.info.peer
    }

    /// Settings of its listener, for links of sessions that begin on it.
    #[must_use]
    pub fn config(&self) -> &LinkConfig {
        &self.0.config
    }

    /// The server: it takes sessions that begin on the connection, and tells of a shutdown, in which
    /// answers without an end should end.
    #[must_use]
    pub fn host(&self) -> &Host<AnyLink> {
        &self.0.host
    }
}
