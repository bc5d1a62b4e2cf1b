//! A server process that is killed and started again under load: what was acknowledged has arrived
//! exactly once, what waited for a connection arrives, and the client's process loses nothing and
//! leaks nothing.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{eventually, within};
use network_system::{Backoff, Client, Server};

const URL: &str = "NETWORK_SYSTEM_TEST_URL";
const FILE: &str = "NETWORK_SYSTEM_TEST_FILE";
const KILLS: u64 = 20;

/// The server process: this program again, with the test below only.
struct Process(Child);

impl Process {
    fn start(url: &str, file: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "the_server_process"]);
        command.env(URL, url).env(FILE, file);
        command.stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What the process does; in the test run itself there is nothing to do.
#[test]
fn the_server_process() {
    let (Ok(url), Ok(file)) = (std::env::var(URL), std::env::var(FILE)) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let known: HashSet<String> = lines(Path::new(&file)).into_iter().collect();
    let out = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(file);
    let record = Arc::new(Mutex::new((known, out.unwrap())));
    let put = move |line: String| {
        let mut record = record.lock().unwrap();
        if record.0.insert(line.clone()) {
            record.1.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
    };
    let put_message = put.clone();
    runtime.block_on(async {
        let _server = Server::builder()
            .listen(url)
            .on_request(move |_, request| {
                put(String::from_utf8_lossy(request.message()).into_owned());
                async move { request.reply("ok").await }
            })
            .on_message(move |_, message| {
                put_message(String::from_utf8_lossy(&message).into_owned());
                async {}
            })
            .start()
            .await
            .unwrap();
        std::future::pending::<()>().await;
    });
}

fn lines(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Bytes of memory that this process has.
fn memory() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("record");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}?envelope=true", free.local_addr().unwrap());
    drop(free);
    let mut process = Process::start(&url, &file);
    let client = Client::builder(&url)
        .reconnect(Backoff::every(Duration::from_millis(10)))
        .start()
        .unwrap();
    let client = Arc::new(client);
    within(client.connected()).await.unwrap();

    let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let failures = Arc::<AtomicU64>::default();
    let ask = |task: u64| {
        let (client, stop) = (client.clone(), stop.clone());
        let (acknowledged, failures) = (acknowledged.clone(), failures.clone());
        tokio::spawn(async move {
            let mut mine = Vec::new();
            for n in 0.. {
                if stop.load(Relaxed) {
                    break;
                }
                let id = format!("request {task} {n}");
                // the same number again, until it is acknowledged
                while let Err(error) = client
                    .request_within(id.clone(), Duration::from_secs(5))
                    .await
                {
                    assert!(error.code() < 0, "{error}");
                    failures.fetch_add(1, Relaxed);
                }
                acknowledged.fetch_add(1, Relaxed);
                mine.push(id);
            }
            mine
        })
    };
    let tasks: Vec<_> = (0..4).map(ask).collect();
    let more = async |count: u64| {
        let until = acknowledged.load(Relaxed) + count;
        let enough = || acknowledged.load(Relaxed) >= until;
        eventually("more is acknowledged", enough).await;
    };
    let mut offline = Vec::new();
    let mut start = (0, 0);
    for round in 0..KILLS {
        more(50).await;
        drop(process);
        eventually("the loss is noticed", || client.session().is_none()).await;
        for n in 0..3 {
            let message = format!("offline {round} {n}");
            client.send(message.clone()).await.unwrap();
            offline.push(message);
        }
        process = Process::start(&url, &file);
        more(50).await;
        let last = offline.last().unwrap();
        let arrived = || lines(&file).contains(last);
        eventually("what waited arrives", arrived).await;
        if round == 2 {
            // by then everything that is kept is there
            start = (open_files(), memory());
        }
    }
    more(50).await;
    stop.store(true, Relaxed);
    let mut asked = Vec::new();
    for task in tasks {
        asked.extend(within(task).await.unwrap());
    }
    assert!(
        failures.load(Relaxed) > 0,
        "nothing was on its way at any kill"
    );

    let all = lines(&file);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &all {
        *counts.entry(line).or_default() += 1;
    }
    for id in &asked {
        assert_eq!(counts.get(id.as_str()), Some(&1), "{id}");
    }
    // all that waited for a connection has arrived, once, and in order
    let waited: Vec<&String> = all.iter().filter(|l| l.starts_with("offline")).collect();
    assert_eq!(waited, offline.iter().collect::<Vec<_>>());
    assert_eq!(client.offline_queue(), (0, 0));

    assert_eq!(open_files(), start.0, "file descriptors leak");
    let grown = memory().saturating_sub(start.1);
    // the acknowledged numbers themselves are kept, a few dozen bytes each
    let kept = asked.len() * 100;
    assert!(
        grown < kept + (8 << 20),
        "{grown} bytes more, {kept} of them for the test"
    );
    drop(process);
}
