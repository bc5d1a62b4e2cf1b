//! A build without the feature `tls` refuses to do without what was asked for.
#![cfg(not(feature = "tls"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

use network_system::{ErrorKind, Schemes, Server};

#[tokio::test]
async fn tls_is_refused_by_name() {
    assert!(!Schemes::KNOWN.contains(&"tls"));
    for address in [
        "tls://127.0.0.1:0",
        "tcp://127.0.0.1:0?tls=true",
        "memory://without?tls=true",
    ] {
        let error = Server::builder().listen(address).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains("built without TLS"), "{error}");
        let Err(error) = network_system::connect(address).await else {
            panic!("connected to {address}");
        };
        assert!(error.to_string().contains("built without TLS"), "{error}");
    }
}
