//! In place of `grpc.rs` where the feature `grpc` is off.

use std::convert::Infallible;
use std::task::{Context, Poll};

use network_system_core::{Encoding, InQueue, LinkInfo, OutQueue, Result, Sent, Sink, Source};

/// Would be a session over gRPC.
#[derive(Debug)]
pub struct GrpcLink(Infallible);

impl GrpcLink {
    pub(crate) fn info(&self) -> &LinkInfo {
        match self.0 {}
    }

    pub(crate) fn is_open(&self) -> bool {
        match self.0 {}
    }
}

impl Source for GrpcLink {
    fn poll_fill(&mut self, _: &mut Context<'_>, _: &mut InQueue) -> Poll<Result<bool>> {
        match self.0 {}
    }
}

impl Sink for GrpcLink {
    fn encoding(&self) -> Encoding {
        match self.0 {}
    }

    fn poll_send(&mut self, _: &mut Context<'_>, _: &mut OutQueue) -> (Sent, Poll<Result<()>>) {
        match self.0 {}
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        match self.0 {}
    }
}
