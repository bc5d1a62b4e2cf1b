//! A link before its handshake: [`Waiting`], and what a listener makes it of: [`Accepting`].

use std::sync::Arc;
use std::task::{Context, Poll};

use network_system_core::config::LinkConfig;
use network_system_core::{
    Address, Encoding, Error, ErrorKind, InQueue, Introduced, Link, LinkInfo, OutQueue, Result,
    Sent, Sink, Source,
};

use super::carrier::Carrier;
use super::{AnyWebSocket, no_stream, scheme, server};
use crate::schemes::AnyLink;

/// What the links of one address share.
#[derive(Clone, Debug)]
pub struct Accepting {
    config: Arc<LinkConfig>,
    path: Arc<str>,
}

impl Accepting {
    pub(super) fn new(address: &Address, config: &LinkConfig) -> Self {
        let path = match address.scheme() {
            // a file, or a name
            "unix" | "memory" => "",
            _ => address.path(),
        };
        Self {
            config: Arc::new(config.clone()),
            path: path.into(),
        }
    }

    /// A link that was accepted, before any handshake.
    pub(crate) fn over(&self, below: AnyLink) -> Waiting {
        let mut info = below.info().clone();
        info.scheme = scheme(info.scheme, matches!(below, AnyLink::Tls(_)));
        Waiting {
            below,
            info,
            accepting: self.clone(),
        }
    }
}

/// A link that was accepted, and waits for its handshakes: that of TLS, where there is one, and then
/// that of WebSocket.
#[derive(Debug)]
pub struct Waiting {
    below: AnyLink,
    info: LinkInfo,
    accepting: Accepting,
}

impl Waiting {
    /// Does the handshakes.
    pub(crate) async fn shake_hands(self) -> Result<AnyWebSocket> {
        let Accepting { config, path } = self.accepting;
        let below = self.below.open_stream().await?;
        let scheme = self.info.scheme;
        let (io, mut info) = Carrier::of(below).ok_or_else(|| no_stream(&self.info.peer))?;
        info.scheme = scheme;
        server::accept(io, info, &config, &path).await
    }

    fn not_open(&self) -> Error {
        Error::new(ErrorKind::Internal, "use a WebSocket with")
            .peer(&self.info.peer)
            .because("its handshake has not been done")
    }
}

impl Source for Waiting {
    fn poll_fill(&mut self, _: &mut Context<'_>, _: &mut InQueue) -> Poll<Result<bool>> {
        Poll::Ready(Err(self.not_open()))
    }
}

impl Sink for Waiting {
    fn encoding(&self) -> Encoding {
        Encoding::Messages
    }

    fn poll_send(&mut self, _: &mut Context<'_>, _: &mut OutQueue) -> (Sent, Poll<Result<()>>) {
        (Sent::default(), Poll::Ready(Err(self.not_open())))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Link for Waiting {
    fn info(&self) -> &LinkInfo {
        &self.info
    }

    fn is_open(&self) -> bool {
        false
    }

    async fn learn_client(&mut self) -> Result<Introduced> {
        let introduced = self.below.learn_client_of_stream().await?;
        let scheme = self.info.scheme;
        self.info = self.below.info().clone();
        self.info.scheme = scheme;
        Ok(introduced)
    }
}
