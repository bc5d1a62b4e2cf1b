//! In place of `http.rs` where the feature `http` is off: nothing can have HTTP, and who asks for it
//! is told so.

use std::convert::Infallible;
use std::sync::Arc;

use network_system_core::config::LinkConfig;
use network_system_core::{
    Address, CloseReason, Error, ErrorKind, Host, Introduced, LinkInfo, Result,
};

use crate::schemes::{AnyBound, AnyLink};

/// HTTP, which this build does not have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Http;

/// Would be a connection with HTTP.
#[derive(Debug)]
pub struct HttpLink(Infallible);

/// Would be an address for HTTP.
pub struct HttpBound(Infallible);

/// Would accept connections with HTTP.
pub struct HttpListener(Infallible);

/// Would be what connections share.
pub(crate) struct Serving(Infallible);

impl Http {
    /// Whether this build has HTTP.
    pub(crate) const IS_THERE: bool = false;

    pub(crate) fn accept(
        &self,
        address: &Address,
        _: &LinkConfig,
    ) -> Result<(Arc<Serving>, LinkConfig)> {
        Err(Error::new(ErrorKind::InvalidArgument, "use HTTP on")
            .peer(address)
            .because("this program was built without HTTP")
            .advice("build it with the feature http"))
    }
}

impl HttpLink {
    pub(crate) fn over(_: AnyLink, serving: Arc<Serving>) -> Self {
        match serving.0 {}
    }
}

impl HttpBound {
    pub(crate) fn new(_: AnyBound, serving: Arc<Serving>) -> Self {
        match serving.0 {}
    }

    pub(crate) fn local(&self) -> &Address {
        match self.0 {}
    }

    pub(crate) fn start(self) -> Result<HttpListener> {
        match self.0 {}
    }
}

impl HttpListener {
    pub(crate) async fn accept(&mut self) -> Result<HttpLink> {
        match self.0 {}
    }
}

impl HttpLink {
    pub(crate) fn info(&self) -> &LinkInfo {
        match self.0 {}
    }

    pub(crate) fn is_open(&self) -> bool {
        match self.0 {}
    }

    pub(crate) async fn learn_client(&mut self) -> Result<Introduced> {
        match self.0 {}
    }

    pub(crate) async fn open(self) -> Result<Self> {
        match self.0 {}
    }

    pub(crate) async fn serve(self, _: Host<AnyLink>) -> CloseReason {
        match self.0 {}
    }
}

/// Would be a session of the message gateway.
#[derive(Debug)]
pub struct GatewayLink(Infallible);

impl GatewayLink {
    pub(crate) fn info(&self) -> &LinkInfo {
        match self.0 {}
    }

    pub(crate) fn is_open(&self) -> bool {
        match self.0 {}
    }
}

crate::never::never!(HttpLink, GatewayLink);
