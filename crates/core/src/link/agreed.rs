//! What both sides of a pipeline have agreed on: [`PipelineInfo`].

use network_system_wire::pipeline::Pattern;

use crate::config::{Compression, PublicKey};

/// What was agreed on for messages that go through a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PipelineInfo {
    /// How this side compresses; `None` also where the peer cannot undo what is set.
    pub compression: Compression,
    /// The encryption.
    pub noise: Option<NoiseInfo>,
}

impl PipelineInfo {
    pub(crate) fn new(compression: Compression, noise: Option<NoiseInfo>) -> Self {
        Self { compression, noise }
    }
}

/// An encryption that was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoiseInfo {
    /// The handshake.
    pub pattern: Pattern,
    /// The peer's public key, whose private key it has proved to own: its identity. `None` with
    /// `NNpsk0`, where all who have the shared key are alike.
    pub peer: Option<PublicKey>,
    /// A value that only the two ends of this one connection have in common, for protocols that bind
    /// themselves to it.
    pub handshake_hash: Vec<u8>,
}

#[cfg(feature = "noise")]
impl NoiseInfo {
    pub(crate) fn new(pattern: Pattern, peer: Option<PublicKey>, handshake_hash: Vec<u8>) -> Self {
        Self {
            pattern,
            peer,
            handshake_hash,
        }
    }
}
