//! In place of `websocket.rs` where the feature `websocket` is off: nothing can be WebSocket, and who asks
//! for it is told so.

use std::convert::Infallible;
use std::task::{Context, Poll};

use network_system_core::config::LinkConfig;
use network_system_core::{
    Address, Encoding, Error, ErrorKind, InQueue, Link, LinkInfo, OutQueue, Result, Sent, Sink,
    Source,
};

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

macro_rules! never {
    ($link:ty) => {
        impl Source for $link {
            fn poll_fill(&mut self, _: &mut Context<'_>, _: &mut InQueue) -> Poll<Result<bool>> {
                match self.0 {}
            }
        }

        impl Sink for $link {
            fn encoding(&self) -> Encoding {
                match self.0 {}
            }

            fn poll_send(
                &mut self,
                _: &mut Context<'_>,
                _: &mut OutQueue,
            ) -> (Sent, Poll<Result<()>>) {
                match self.0 {}
            }

            fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
                match self.0 {}
            }
        }

        impl Link for $link {
            fn info(&self) -> &LinkInfo {
                match self.0 {}
            }
        }
    };
}

never!(AnyWebSocket);
never!(Waiting);
