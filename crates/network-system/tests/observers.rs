//! What is seen of servers, clients and pools from elsewhere: by transport, and not for longer than
//! they live.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::{eventually, within};

use network_system::prelude::*;
use network_system::{ConnectionPool, Latency, PoolConfig};

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_by_transport() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    for workers in [0, 2] {
        let server = Server::builder()
            .listen("tcp://127.0.0.1:0")
            .listen(format!("unix://{}", path.display()))
            .workers(workers)
            .on_message(|session, message| async move { session.send(message).await })
            .start()
            .await
            .unwrap();
        let observer = server.observer();
        let mut open = Vec::new();
        for address in server.listening() {
            for _ in 0..3 {
                open.push(network_system::connect(address.as_str()).await.unwrap());
            }
        }
        for connection in &mut open {
            connection.send("hello").await.unwrap();
            within(connection.receive()).await.unwrap().unwrap();
        }
        drop(open.pop());
        let active = |scheme| observer.statistics().unwrap().transports[scheme].connections_active;
        eventually("one is gone", || active("unix") == 2).await;
        eventually("all are counted", || {
            observer.statistics().unwrap().latency.count == 6
        })
        .await;
        let seen = observer.statistics().unwrap();
        let tcp = &seen.transports["tcp"];
        assert_eq!((tcp.connections_active, tcp.connections_total), (3, 3));
        assert_eq!(seen.transports["unix"].connections_total, 3);
        assert_eq!((tcp.listeners, seen.transports["unix"].listeners), (1, 1));
        assert_eq!(observer.sessions().unwrap().len(), 5);
        let bounds = Latency::BOUNDS;
        assert_eq!(bounds[0], Duration::from_micros(1));
        assert_eq!(bounds[24], Duration::from_secs(60));
        assert_eq!(seen.latency.buckets[24], 6);
        assert!(observer.is_ready());
        drop(open);
        server.shutdown(Duration::from_secs(5)).await;
        assert!(observer.is_gone() && observer.statistics().is_none() && !observer.is_ready());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_and_pools_are_seen_until_they_end() {
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .on_message(|session, message| async move { session.send(message).await })
        .start()
        .await
        .unwrap();
    let url = server.listening()[0].as_str().to_owned();
    let client = Client::builder(&*url).connect().await.unwrap();
    let observer = client.observer();
    let seen = observer.statistics().unwrap();
    assert_eq!(seen.transports["tcp"].connections_active, 1);
    assert_eq!(seen.transports["tcp"].listeners, 0);
    assert!(observer.is_ready() && observer.sessions().is_none());
    client.close(Duration::from_secs(5)).await;
    eventually("the client is gone", || observer.is_gone()).await;

    let pool = ConnectionPool::new(PoolConfig::default()).unwrap();
    let observer = pool.observer();
    drop(pool.acquire(&url).await.unwrap());
    assert_eq!(observer.statistics().unwrap().created, 1);
    pool.close(Duration::from_secs(5)).await;
    drop(pool);
    eventually("the pool is gone", || observer.statistics().is_none()).await;
}
