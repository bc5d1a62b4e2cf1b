//! Programs that speak HTTP, where they find the server, and connections whose bytes a test writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use network_system::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::programs::program;
use super::within;

/// A path of the server's first address.
pub fn url(server: &Server, path: &str) -> String {
    let address = &server.listening()[0];
    let port = address.port().unwrap();
    format!("{}://localhost:{port}{path}", address.scheme())
}

/// What a program prints when it succeeds.
pub async fn output(name: &str, package: &str, arguments: &[&str]) -> Vec<u8> {
    let mut command = program(name, package);
    command.stdin(std::process::Stdio::null());
    command.stderr(std::process::Stdio::piped());
    let output = within(command.args(arguments).output()).await.unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {out}{err}");
    output.stdout
}

/// What every call of curl has.
pub const QUIET: [&str; 6] = [
    "--silent",
    "--show-error",
    "--max-time",
    "25",
    "--noproxy",
    "*",
];

/// What curl prints when it succeeds, whatever the status.
pub async fn curl_bytes(arguments: &[&str]) -> Vec<u8> {
    output("curl", "curl", &[&QUIET[..], arguments].concat()).await
}

/// As [`curl_bytes`], as text.
pub async fn curl(arguments: &[&str]) -> String {
    String::from_utf8(curl_bytes(arguments).await).unwrap()
}

/// The status that curl gets.
pub async fn status(arguments: &[&str]) -> String {
    let all = [
        &["--output", "/dev/null", "--write-out", "%{http_code}"],
        arguments,
    ]
    .concat();
    curl(&all).await
}

/// A plain connection to the server's first address.
pub async fn dial(server: &Server) -> TcpStream {
    let port = server.listening()[0].port().unwrap();
    within(TcpStream::connect(("127.0.0.1", port)))
        .await
        .unwrap()
}

/// Everything that comes back for these bytes until the server closes; fails when it never does.
pub async fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut stream = dial(server).await;
    // a server that has seen enough may close before it has read all
    let _ = stream.write_all(bytes).await;
    let (back, _) = super::read_to_end(&mut stream).await;
    String::from_utf8_lossy(&back).into_owned()
}

/// A client of HTTP/1.1 with one connection that goes on to ask while others misbehave.
pub struct Bystander {
    answers: watch::Receiver<u64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Bystander {
    /// Connects and starts to ask for `path`, which must be answered with 200.
    pub async fn start(server: &Server, path: &str) -> Self {
        let mut stream = dial(server).await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (count, answers) = watch::channel(0);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while !stopped.load(Relaxed) {
                within(stream.write_all(head.as_bytes())).await.unwrap();
                let n = within(stream.read(&mut buffer)).await.unwrap();
                let got = String::from_utf8_lossy(&buffer[..n]);
                assert!(got.starts_with("HTTP/1.1 200"), "{got}");
                count.send_modify(|answers| *answers += 1);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let mut bystander = Self {
            answers,
            stop,
            task,
        };
        bystander.still_works().await;
        bystander
    }

    /// Fails unless more is answered from now on.
    pub async fn still_works(&mut self) {
        let now = *self.answers.borrow();
        let more = self.answers.wait_for(|answers| *answers >= now + 3);
        assert!(within(more).await.is_ok(), "the bystander has failed");
    }

    /// Ends it after a last look.
    pub async fn finish(mut self) {
        self.still_works().await;
        self.stop.store(true, Relaxed);
        within(self.task).await.unwrap();
    }
}
