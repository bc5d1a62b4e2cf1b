//! In place of `tls.rs` where the feature `tls` is off: nothing can have TLS, and who asks for it is
//! told so.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use network_system_core::config::LinkConfig;
use network_system_core::{
    Address, Bound, Error, ErrorKind, Link, LinkInfo, Listener, Result, StreamLink,
};

/// TLS, which this build does not have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tls;

/// Would be a link with TLS.
#[derive(Debug)]
pub struct TlsLink(Infallible);

/// Would be an address for links with TLS.
pub struct TlsBound<B>(Infallible, PhantomData<B>);

/// Would accept links with TLS.
pub struct TlsListener<L>(Infallible, PhantomData<L>);

/// Would be the stream under TLS.
pub(crate) struct Plain;

impl<S> From<StreamLink<S>> for Plain {
    fn from(_: StreamLink<S>) -> Self {
        Self
    }
}

/// Would be what one connect needs.
pub(crate) struct Connecting(Infallible);

impl Connecting {
    pub(crate) async fn over(self, _: Plain, _: &Address) -> Result<TlsLink> {
        match self.0 {}
    }
}

/// Would be what listeners share.
pub(crate) struct Accepting(Infallible);

fn missing(address: &Address) -> Error {
    Error::new(ErrorKind::InvalidArgument, "use TLS on")
        .peer(address)
        .because("this program was built without TLS")
        .advice("build it with the feature tls")
}

#[cfg(feature = "http")]
impl TlsLink {
    pub(crate) fn into_stream(self) -> Box<dyn crate::http::Stream> {
        match self.0 {}
    }
}

impl Tls {
    /// Whether this build has TLS.
    pub const IS_THERE: bool = false;

    pub(crate) fn accept(&self, address: &Address, _: &LinkConfig) -> Result<Accepting> {
        Err(missing(address))
    }

    pub(crate) fn connect(&self, address: &Address, _: &LinkConfig) -> Result<Connecting> {
        Err(missing(address))
    }

    pub(crate) fn reload(&self) -> Result<()> {
        Ok(())
    }
}

impl TlsLink {
    pub(crate) fn poll_first(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<Option<u8>>> {
        match self.0 {}
    }
}

impl Accepting {
    pub(crate) fn link(&self, _: Plain) -> Result<TlsLink> {
        match self.0 {}
    }

    pub(crate) fn over<B: Bound>(self, _: Vec<B>) -> std::iter::Empty<TlsBound<B>> {
        match self.0 {}
    }
}

/// In place of the stream under a link with TLS.
#[cfg(feature = "websocket")]
pub(crate) type Secured = tokio::io::DuplexStream;

#[cfg(feature = "websocket")]
impl TlsLink {
    pub(crate) fn into_parts(self) -> (Secured, LinkInfo) {
        match self.0 {}
    }
}

crate::never::never!(TlsLink);

impl Link for TlsLink {
    fn info(&self) -> &LinkInfo {
        match self.0 {}
    }
}

impl<B: Bound> Bound for TlsBound<B> {
    type Listener = TlsListener<B::Listener>;

    fn local(&self) -> &Address {
        match self.0 {}
    }

    fn start(self) -> Result<Self::Listener> {
        match self.0 {}
    }
}

impl<L: Listener> Listener for TlsListener<L> {
    type Link = TlsLink;

    async fn accept(&mut self) -> Result<TlsLink> {
        match self.0 {}
    }
}
