//! Handlers on a pool of rayon.
#![cfg(feature = "rayon")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use network_system::threads::ThreadPool;
use network_system::{Client, Server};
use network_system_integrations::rayon::RayonPool;

fn pool() -> Arc<RayonPool> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .thread_name(|i| format!("rayon-{i}"))
        .build();
    Arc::new(RayonPool::new(pool.unwrap()))
}

#[tokio::test]
async fn handlers_run_on_it() {
    let pool = pool();
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0?envelope=true")
        .on_request(|_, request| async move {
            let thread = std::thread::current().name().unwrap().to_owned();
            request.reply(thread.as_str()).await
        })
        .thread_pool(pool.clone())
        .start()
        .await
        .unwrap();
    let client = Client::builder(server.listening()[0].to_string())
        .envelope(true)
        .start()
        .unwrap();
    for _ in 0..100 {
        let thread = client.request("where").await.unwrap();
        assert!(thread.as_str().unwrap().starts_with("rayon-"));
    }
    client.close(Duration::from_secs(5)).await;
    let statistics = pool.statistics();
    assert!(statistics.threads == 2 && statistics.completed >= 100);
}

#[test]
fn delays_and_panics() {
    let pool = pool();
    let (done, results) = mpsc::channel();
    for ms in [40, 0, 20] {
        let done = done.clone();
        pool.execute_after(
            Duration::from_millis(ms),
            Box::new(move || done.send(ms).unwrap()),
        )
        .unwrap();
    }
    assert_eq!(results.iter().take(3).collect::<Vec<_>>(), [0, 20, 40]);
    pool.execute(Box::new(|| panic!("one task"))).unwrap();
    // the pool goes on, and its last owner may be one of its own threads
    let (pool, here) = (Arc::into_inner(pool).unwrap(), done);
    let owner = Arc::new(pool);
    let task = {
        let owner = owner.clone();
        Box::new(move || {
            drop(owner);
            here.send(1).unwrap();
        })
    };
    owner.execute(task).unwrap();
    drop(owner);
    assert_eq!(results.recv().unwrap(), 1);
}
