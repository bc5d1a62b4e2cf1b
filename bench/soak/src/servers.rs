//! The server processes: this program again, killed and started anew one after the other.

use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use network_system::{Message, Server};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::Result;
use crate::question::answer;

/// How long a server is left alone after the one before it has been started again.
const PAUSE: Duration = Duration::from_secs(3);

/// One answer of so many takes a while, at most so many milliseconds: questions are under way when
/// their server dies, and requests are made at a second one, too.
const SLOW_ONE_OF: u32 = 20;
const SLOW: u64 = 50;

/// What a server process does, until its parent has gone.
pub async fn serve(url: &str) -> Result<()> {
    let _server = Server::builder()
        .listen(url)
        .on_message(|session, message| async move {
            if is_slow() {
                a_while().await; // and what comes after it: answers are in order
            }
            session.send(Message::from(answer(&message))).await
        })
        .on_request(|_, request| async move {
            let answer = answer(request.message());
            if !is_slow() {
                return request.reply(answer).await;
            }
            // the others overtake it
            tokio::spawn(async move {
                a_while().await;
                request.reply(answer).await
            });
            Ok(())
        })
        .start()
        .await?;
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

fn is_slow() -> bool {
    fastrand::u32(..SLOW_ONE_OF) == 0
}

async fn a_while() {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=SLOW))).await;
}

/// The three servers, and how often one of them was killed.
pub struct Servers {
    urls: Vec<String>,
    children: Vec<Child>,
    kills: Arc<AtomicU64>,
}

impl Servers {
    /// Starts them. Each has a loopback address of its own, which no outgoing connection takes: a
    /// port of a server that is down stays free for it.
    pub fn start() -> Result<Self> {
        let (mut urls, mut children) = (Vec::new(), Vec::new());
        for host in 2..5 {
            let free = TcpListener::bind(("127.0.0.".to_owned() + &host.to_string(), 0))?;
            let url = format!("tcp://{}?envelope=true", free.local_addr()?);
            drop(free);
            children.push(spawn(&url)?);
            urls.push(url);
        }
        Ok(Self {
            urls,
            children,
            kills: Arc::default(),
        })
    }

    pub fn urls(&self) -> Vec<String> {
        self.urls.clone()
    }

    /// Counts the kills.
    pub fn kills(&self) -> Arc<AtomicU64> {
        self.kills.clone()
    }

    /// Kills one after the other until `stop` is true; then all are up.
    pub async fn torment(mut self, mut stop: watch::Receiver<bool>) -> Result<Self> {
        for at in (0..self.children.len()).cycle() {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(PAUSE) => {}
            }
            // SIGKILL, to the process that this one has started
            self.children[at].kill().await?;
            self.kills.fetch_add(1, Relaxed);
            let down = fastrand::u64(100..1500);
            tokio::time::sleep(Duration::from_millis(down)).await;
            self.children[at] = spawn(&self.urls[at])?;
        }
        Ok(self)
    }

    /// Ends them.
    pub async fn end(mut self) -> Result<()> {
        for child in &mut self.children {
            child.kill().await?;
        }
        Ok(())
    }
}

/// The child ends when its input does: it never outlives this process.
fn spawn(url: &str) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", url]).stdin(Stdio::piped());
    Ok(command.kill_on_drop(true).spawn()?)
}
