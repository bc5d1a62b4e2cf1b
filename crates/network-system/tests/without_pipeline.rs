//! A build without the features `compression` and `noise` refuses to do without what was asked for.
#![cfg(not(any(feature = "compression", feature = "noise")))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

use network_system::config::{Compression, Noise, Pipeline};
use network_system::{ErrorKind, Server};

#[tokio::test]
async fn what_this_build_cannot_do_is_refused_by_name() {
    for (pipeline, words) in [
        (Pipeline::new().compress(Compression::Lz4), "cannot do lz4"),
        (Pipeline::new().noise(Noise::psk([7; 32])), "has no Noise"),
    ] {
        let server = Server::builder()
            .listen("tcp://127.0.0.1:0")
            .pipeline(pipeline);
        let error = server.start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}
