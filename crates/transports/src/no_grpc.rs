//! In place of `grpc.rs` where the feature `grpc` is off.

use std::convert::Infallible;

use network_system_core::LinkInfo;

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

crate::never::never!(GrpcLink);
