//! Messages through a pipeline: what both sides agree on, and what arrives, over every transport and
//! at both levels of the API.
#![cfg(all(feature = "compression", feature = "noise"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use common::piped::{compressions, dial, noises, round_trip, sizes, text};
use common::{echo, eventually, within};
use network_system::config::{Noise, Pipeline};

/// Each compression with each encryption, and messages of all sizes.
#[tokio::test]
async fn every_message_arrives_through_every_pipeline() {
    for compression in compressions() {
        for (server, client) in noises() {
            let of = |noise: &Option<Noise>| Pipeline {
                noise: noise.clone(),
                ..Pipeline::new().compress(compression)
            };
            let echo = echo(|builder| builder.pipeline(of(&server))).await;
            let mut connection = dial(echo.url(), of(&client)).await.unwrap();
            let info = connection.info().pipeline.clone().unwrap();
            assert_eq!(info.compression, compression);
            let pattern = client.as_ref().map(|noise| noise.pattern);
            assert_eq!(info.noise.as_ref().map(|noise| noise.pattern), pattern);
            for size in sizes() {
                round_trip(&mut connection, &text(size)).await;
            }
            // a burst is one write, and comes back whole
            for n in 0..500 {
                connection.send(text(n * 7)).await.unwrap();
            }
            for n in 0..500 {
                let back = within(connection.receive()).await.unwrap();
                assert!(back.unwrap() == text(n * 7), "{n}");
            }
            within(connection.close()).await.unwrap();
            eventually("a regular end", || echo.ended("peer") == 1).await;
        }
    }
}
