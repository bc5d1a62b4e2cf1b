//! HTTP as its users see it, with curl, nghttp, h2load and wrk on the other side: axum routers beside
//! messages, streaming, compression, static files, statistics, and the end.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use common::http::{curl, url};
use network_system::Server;
use network_system::prelude::*;

fn router() -> Router {
    Router::new()
        .route("/hello", get(|| async { "hello\n" }))
        .route("/echo", post(|body: String| async { body }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_is_served_to_curl() {
    for workers in [0, 2] {
        let server = Server::builder()
            .listen("http://127.0.0.1:0")
            .workers(workers)
            .http(router())
            .start()
            .await
            .unwrap();
        for version in ["--http1.1", "--http2", "--http2-prior-knowledge"] {
            let got = curl(&[version, &url(&server, "/hello")]).await;
            assert_eq!(got, "hello\n", "{version}");
            let got = curl(&[version, "-d", "body", &url(&server, "/echo")]).await;
            assert_eq!(got, "body", "{version}");
        }
        let report = server.shutdown(Duration::from_secs(10)).await;
        assert_eq!(report.cut, 0);
        let http = &report.statistics.http;
        assert_eq!((http.requests, http.by_status["2xx"]), (6, 6));
        assert_eq!((http.by_method["GET"], http.by_method["POST"]), (3, 3));
        assert_eq!((http.active, http.aborted), (0, 0));
        assert!(http.bytes_in > 0 && http.bytes_out > 0 && http.latency.count == 6);
        assert_eq!(report.statistics.connections_total, 6);
    }
}
