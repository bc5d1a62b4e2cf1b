//! The programs in `examples/`, as they run.

use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use super::within;

/// The program of an example: beside the directory that this test's own program lies in.
pub fn example(name: &str) -> Command {
    let own = std::env::current_exe().unwrap();
    let target = own.parent().and_then(|deps| deps.parent()).unwrap();
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let program = target.join("examples").join(file);
    assert!(
        program.exists(),
        "{} is missing: run `cargo build --examples` first",
        program.display()
    );
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A server example that runs.
pub struct Running {
    child: Child,
    printed: Lines<BufReader<ChildStdout>>,
    pub port: u16,
}

impl Running {
    /// Starts it on a free port.
    pub async fn start(name: &str, address: &str) -> Self {
        Self::start_on(name, &[address]).await
    }

    /// Starts it on several.
    pub async fn start_on(name: &str, addresses: &[&str]) -> Self {
        let mut command = example(name);
        let mut child = command
            .args(addresses)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = within(printed.next_line()).await.unwrap().expect("a line");
        let address = line.strip_prefix("listening on ").expect("the address");
        let address: network_system::Address = address.parse().unwrap();
        let port = address.port().unwrap();
        Self {
            child,
            printed,
            port,
        }
    }

    pub async fn dial(&self) -> TcpStream {
        within(TcpStream::connect(("127.0.0.1", self.port)))
            .await
            .unwrap()
    }

    /// What it prints up to a line that starts with `start`, and that line.
    pub async fn until(&mut self, start: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = within(self.printed.next_line()).await.unwrap();
            lines.push(line.unwrap_or_else(|| panic!("'{start}' is missing in {lines:#?}")));
            if lines.last().is_some_and(|line| line.starts_with(start)) {
                return lines;
            }
        }
    }

    /// Ends it as Ctrl-C does; what it had still to print.
    #[cfg(unix)]
    pub async fn interrupt(mut self) -> (Vec<String>, ExitStatus) {
        let pid = self.child.id().expect("it runs");
        // `kill` is part of every shell
        let kill = format!("kill -INT {pid}");
        let killed = Command::new("sh").args(["-c", &kill]).status();
        assert!(within(killed).await.unwrap().success());
        let mut rest = Vec::new();
        while let Some(line) = within(self.printed.next_line()).await.unwrap() {
            rest.push(line);
        }
        (rest, within(self.child.wait()).await.unwrap())
    }

    /// Ends it at once, where there is no signal for Ctrl-C.
    #[cfg(not(unix))]
    pub async fn kill(mut self) -> ExitStatus {
        within(self.child.kill()).await.unwrap();
        within(self.child.wait()).await.unwrap()
    }
}
