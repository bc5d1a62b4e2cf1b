//! The page of metrics: right numbers, what the documents say, and what promtool says.
#![cfg(all(feature = "monitoring", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use network_system::prelude::*;
use network_system::threads::{ThreadPool, Threads};
use network_system::{
    BreakerConfig, CircuitBreaker, ConnectionPool, PoolConfig, RequestPool, RequestPoolConfig,
};
use network_system_integrations::monitoring::{FAMILIES, Kind, Monitor};

/// The lines of the page by name and labels.
fn values(page: &str) -> BTreeMap<&str, f64> {
    let lines = page
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect()
}

async fn echo(address: &str) -> Server {
    let server = Server::builder()
        .listen(address)
        .on_request(|_, request| async move {
            let message = request.message().clone();
            request.reply(message).await
        });
    let server = server.on_message(|session, message| async move { session.send(message).await });
    server.start().await.unwrap()
}

/// A page with a line of every family, and who is on it.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_right_complete_and_as_promtool_wants_it() {
    let server = echo("tcp://127.0.0.1:0").await;
    let url = server.listening()[0].as_str().to_owned();
    let monitor = Monitor::new();
    monitor.install().unwrap();
    metrics::counter!("my_own_total", "kind" => "a \"quoted\" one").increment(3);
    metrics::describe_counter!("my_own_total", "Mine.");
    monitor.server("chat", server.observer());
    let client = Client::builder(&*url).connect().await.unwrap();
    monitor.client("up", client.observer());
    let pool = ConnectionPool::new(PoolConfig::default()).unwrap();
    monitor.pool("p", pool.observer());
    drop(pool.acquire(&url).await.unwrap());
    let asking = echo("tcp://127.0.0.1:0?envelope=true").await;
    let requests = RequestPool::new(
        [asking.listening()[0].as_str()],
        RequestPoolConfig::default(),
    )
    .unwrap();
    requests.request("one").await.unwrap();
    monitor.request_pool("r", requests.observer());
    monitor.breaker("b", CircuitBreaker::new(BreakerConfig::default()));
    let threads: Arc<dyn ThreadPool> = Arc::new(Threads::new(1).unwrap());
    monitor.thread_pool("t", &threads);
    let mut connection = network_system::connect(&url).await.unwrap();
    for n in 0..100_usize {
        connection.send(vec![1; n]).await.unwrap();
        connection.receive().await.unwrap().unwrap();
    }
    while server.statistics().latency.count < 100 {
        tokio::task::yield_now().await;
    }
    let page = monitor.render();
    let values = values(&page);
    let bytes = (4 * 100 + 99 * 100 / 2) as f64;
    for (line, want) in [
        (
            "network_system_connections_active{server=\"chat\",transport=\"tcp\"}",
            3.0,
        ),
        (
            "network_system_connections_active{client=\"up\",transport=\"tcp\"}",
            1.0,
        ),
        (
            "network_system_listeners{server=\"chat\",transport=\"tcp\"}",
            1.0,
        ),
        (
            "network_system_messages_received_total{server=\"chat\"}",
            100.0,
        ),
        ("network_system_messages_sent_total{server=\"chat\"}", 100.0),
        (
            "network_system_received_bytes_total{server=\"chat\"}",
            bytes,
        ),
        ("network_system_sent_bytes_total{server=\"chat\"}", bytes),
        (
            "network_system_message_latency_seconds_count{server=\"chat\"}",
            100.0,
        ),
        (
            "network_system_message_latency_seconds_bucket{server=\"chat\",le=\"+Inf\"}",
            100.0,
        ),
        (
            "network_system_message_latency_seconds_bucket{server=\"chat\",le=\"60\"}",
            100.0,
        ),
        ("network_system_ready{server=\"chat\"}", 1.0),
        ("network_system_pool_created_total{pool=\"p\"}", 1.0),
        (
            "network_system_request_pool_requests_total{pool=\"r\"}",
            1.0,
        ),
        (
            "network_system_breaker_state{breaker=\"b\",state=\"closed\"}",
            1.0,
        ),
        ("network_system_thread_pool_threads{pool=\"t\"}", 1.0),
        ("my_own_total{kind=\"a \\\"quoted\\\" one\"}", 3.0),
    ] {
        assert_eq!(values.get(line), Some(&want), "{line}\n{page}");
    }
    assert!(values["process_resident_memory_bytes"] > 1e6);
    for family in FAMILIES {
        // no request came over HTTP
        let absent = [
            "http_requests_total",
            "http_responses_total",
            "connections_ended_total",
        ];
        let absent = absent.iter().any(|name| family.name.ends_with(name));
        assert!(
            page.contains(&format!("# TYPE {} ", family.name)) || absent,
            "{}",
            family.name
        );
    }
    promtool(&page);

    server.shutdown(Duration::from_secs(5)).await;
    assert!(!monitor.render().contains("server=\"chat\""));
}

/// promtool finds nothing wrong with it.
fn promtool(page: &str) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool; scripts/test.sh --prepare installs it");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_table_of_the_documents_is_what_the_page_has() {
    let text = include_str!("../../../docs/METRICS.md");
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| `network_system_"));
    let rows: Vec<Vec<&str>> = rows
        .map(|row| row.split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), FAMILIES.len());
    for (row, family) in rows.iter().zip(FAMILIES) {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let name = format!("`{}`", family.name);
        assert_eq!(row[1..3], [&*name, kind]);
        assert!(!row[3].is_empty() && !row[4].is_empty());
        assert_eq!(row[5], family.help);
    }
}

/// Each rule has a test of its own, and uses what there is.
#[test]
fn the_alert_rules_and_the_dashboard_are_right() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/monitoring");
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts.test.yml"],
    ] {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(folder)
            .output();
        let output = output.expect("promtool; scripts/test.sh --prepare installs it");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    let rules = include_str!("../../../packaging/monitoring/alerts.yml");
    let tests = include_str!("../../../packaging/monitoring/alerts.test.yml");
    for alert in rules
        .lines()
        .filter_map(|l| l.trim().strip_prefix("- alert: "))
    {
        assert!(tests.contains(&format!("alertname: {alert}")), "{alert}");
    }
    let grafana = include_str!("../../../packaging/monitoring/grafana.json");
    let words = |text: &'static str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let used = words(rules).chain(words(grafana));
    let used: std::collections::BTreeSet<_> = used
        .filter(|word| word.starts_with("network_system_"))
        .collect();
    assert!(used.len() > 10);
    for name in used {
        let name = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(FAMILIES.iter().any(|family| family.name == name), "{name}");
    }
}
