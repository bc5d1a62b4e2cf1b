//! What stands for the compressions in a build without the feature `compression`.

use network_system_wire::pipeline::Algorithm;

use crate::config::Compression;
use crate::error::{Error, ErrorKind, Result};

pub(super) const ACCEPTS: u8 = 0;

pub(super) fn check(compression: Compression) -> Result<()> {
    match compression {
        Compression::None => Ok(()),
        other => Err(Error::new(ErrorKind::InvalidArgument, "compress messages")
            .because(format_args!("this build cannot do {other}"))
            .advice("build with the feature `compression`")),
    }
}

pub(super) fn compress(_: Compression, _: &[u8], _: &mut Vec<u8>) -> bool {
    false
}

pub(super) fn decompress(algorithm: Algorithm, _: &[u8], _: usize) -> Result<Vec<u8>> {
    Err(
        Error::new(ErrorKind::Protocol, "decompress a message").because(format_args!(
            "this build cannot undo {algorithm:?}, and did not say so"
        )),
    )
}
