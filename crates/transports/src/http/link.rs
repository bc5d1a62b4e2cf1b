//! An HTTP connection as the server sees it: [`HttpLink`], and listeners for it: [`HttpBound`],
//! [`HttpListener`].

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use network_system_core::config::LinkConfig;
use network_system_core::{
    Address, Bound, CloseReason, Encoding, Error, ErrorKind, Host, InQueue, Introduced, Link,
    LinkInfo, OutQueue, Result, Sent, Sink, Source,
};

use super::connection;
use super::gateway::Gateway;
use super::{Http, HttpService};
use crate::schemes::{AnyBound, AnyLink, AnyListener};

/// What the connections of a listener share.
pub(crate) struct Serving {
    pub(super) service: Option<HttpService>,
    pub(super) config: LinkConfig,
    pub(super) gateway: Option<Gateway>,
}

impl Serving {
    pub(crate) fn new(http: &Http, config: &LinkConfig) -> Arc<Self> {
        Arc::new(Self {
            service: http.service(config),
            config: config.clone(),
            gateway: config.http.messages.as_deref().map(Gateway::new),
        })
    }
}

/// A connection with HTTP. It is no message link: the server serves it.
pub struct HttpLink {
    below: Box<AnyLink>,
    /// What was read already, to find out that it is HTTP.
    prefix: Bytes,
    info: LinkInfo,
    serving: Arc<Serving>,
}

impl HttpLink {
    /// HTTP over a link of a byte stream, from which nothing but `prefix` has been read.
    pub(crate) fn new(below: AnyLink, prefix: Bytes, serving: Arc<Serving>) -> Self {
        let mut link = Self {
            info: Link::info(&below).clone(),
            below: Box::new(below),
            prefix,
            serving,
        };
        link.learn();
        link
    }

    /// HTTP over a link of a byte stream, from which nothing has been read.
    pub(crate) fn over(below: AnyLink, serving: Arc<Serving>) -> Self {
        Self::new(below, Bytes::new(), serving)
    }

    /// Takes over what the link below knows.
    fn learn(&mut self) {
        self.info = Link::info(&*self.below).clone();
        self.info.scheme = match self.info.tls {
            Some(_) => "https",
            None => "http",
        };
        self.info.envelope = false;
    }

    pub(crate) fn info(&self) -> &LinkInfo {
        &self.info
    }

    pub(crate) fn is_open(&self) -> bool {
        Link::is_open(&*self.below)
    }

    pub(crate) async fn learn_client(&mut self) -> Result<Introduced> {
        let introduced = self.below.learn_client_below().await?;
        self.learn();
        Ok(introduced)
    }

    pub(crate) async fn open(mut self) -> Result<Self> {
        self.below = Box::new(self.below.open_below().await?);
        self.learn();
        Ok(self)
    }

    pub(crate) async fn serve(self, host: Host<AnyLink>) -> CloseReason {
        let Some(stream) = self.below.into_stream() else {
            return CloseReason::Cut;
        };
        connection::serve(stream, self.prefix, self.info, self.serving, host).await
    }
}

/// Why nothing can be sent over a whole connection, or received.
fn no_messages() -> Error {
    Error::new(ErrorKind::InvalidArgument, "move messages over")
        .because("an HTTP connection carries requests, and messages in their bodies alone")
}

impl Source for HttpLink {
    fn poll_fill(&mut self, _: &mut Context<'_>, _: &mut InQueue) -> Poll<Result<bool>> {
        Poll::Ready(Err(no_messages()))
    }
}

impl Sink for HttpLink {
    fn encoding(&self) -> Encoding {
        Encoding::Messages
    }

    fn poll_send(&mut self, _: &mut Context<'_>, _: &mut OutQueue) -> (Sent, Poll<Result<()>>) {
        (Sent::default(), Poll::Ready(Err(no_messages())))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for HttpLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpLink")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// An address that has been taken for HTTP.
pub struct HttpBound {
    below: Box<AnyBound>,
    serving: Arc<Serving>,
}

impl HttpBound {
    pub(crate) fn new(below: AnyBound, serving: Arc<Serving>) -> Self {
        Self {
            below: Box::new(below),
            serving,
        }
    }

    pub(crate) fn local(&self) -> &Address {
        self.below.local()
    }

    pub(crate) fn start(self) -> Result<HttpListener> {
        Ok(HttpListener {
            below: Box::new(self.below.start()?),
            serving: self.serving,
        })
    }
}

/// Accepts connections with HTTP.
pub struct HttpListener {
    below: Box<AnyListener>,
    serving: Arc<Serving>,
}

impl HttpListener {
    pub(crate) async fn accept(&mut self) -> Result<HttpLink> {
        let below = self.below.accept_below().await?;
        Ok(HttpLink::over(below, self.serving.clone()))
    }
}
