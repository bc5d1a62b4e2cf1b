//! In place of `websocket.rs` where the feature `websocket` is off: nothing can be WebSocket, and who asks
//! for it is told so.

use std::convert::Infallible;

use network_system_core::config::LinkConfig;
use network_system_core::{Address, Error, ErrorKind, Link, LinkInfo, Result};

use crate::schemes::AnyLink;

/// Whether this build has WebSocket.
pub(crate) const IS_THERE: bool = false;

/// Would be a link over WebSocket.
#[derive(Debug)]
pub struct AnyWebSocket(Infallible);

/// Would be one before its handshake.
#[derive(Debug)]
pub struct Waiting(Infallible);

/// Would be what the links of one address share.
#[derive(Clone, Debug)]
pub struct Accepting(Infallible);

fn missing(address: &Address) -> Error {
    Error::new(ErrorKind::InvalidArgument, "use WebSocket at")
        .peer(address)
        .because("this program was built without WebSocket")
        .advice("build it with the feature websocket")
}

pub(crate) fn check(address: &Address, _: &LinkConfig) -> Result<()> {
    Err(missing(address))
}

pub(crate) fn accepting(address: &Address, _: &LinkConfig) -> Result<Accepting> {
    Err(missing(address))
}

pub(crate) async fn connect(_: AnyLink, address: &Address, _: &LinkConfig) -> Result<AnyWebSocket> {
    Err(missing(address))
}

impl Accepting {
    pub(crate) fn over(&self, _: AnyLink) -> Waiting {
        match self.0 {}
    }
}

impl Waiting {
    pub(crate) async fn shake_hands(self) -> Result<AnyWebSocket> {
        match self.0 {}
    }
}

crate::never::never!(AnyWebSocket, Waiting);

impl Link for AnyWebSocket {
    fn info(&self) -> &LinkInfo {
        match self.0 {}
    }
}

impl Link for Waiting {
    fn info(&self) -> &LinkInfo {
        match self.0 {}
    }
}
