//! Child processes of a measurement: started, listened to under a deadline, always killed and
//! reaped.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child as Process, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::error::{Context, Error, Result};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How often a wait looks whether Ctrl-C was pressed.
const GLANCE: Duration = Duration::from_millis(100);

/// How long a child that has closed its output may take to exit.
const EXIT_TIME: Duration = Duration::from_secs(2);

/// From now on Ctrl-C makes every wait for a child fail with [`Error::Interrupted`], so that
/// children are reaped on the way out.
pub fn catch_interrupts() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot watch for Ctrl-C")?;
    thread::Builder::new()
        .name("ctrl-c".into())
        .spawn(move || {
            runtime.block_on(async {
                while tokio::signal::ctrl_c().await.is_ok() {
                    INTERRUPTED.store(true, Ordering::Relaxed);
                }
            });
        })
        .map(drop)
        .context("cannot watch for Ctrl-C")
}

/// Fails when Ctrl-C was pressed.
pub fn check_interrupt() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        Err(Error::Interrupted)
    } else {
        Ok(())
    }
}

/// A process of this program in a hidden role. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Child {
    process: Process,
    name: String,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Child {
    /// Starts this executable with `arguments`; `name` is for error messages.
    pub fn start(name: String, arguments: &[String]) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this executable")?;
        let mut command = Command::new(program);
        command.args(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        own_group(&mut command);
        let mut process = command
            .spawn()
            .context(format!("cannot start the {name}"))?;
        let input = process.stdin.take();
        let (output, errors) = (process.stdout.take(), process.stderr.take());
        let (sender, lines) = channel();
        // The threads end when the process does, since that closes the pipes.
        thread::spawn(move || {
            for line in output
                .into_iter()
                .flat_map(|pipe| BufReader::new(pipe).lines())
            {
                if line.map_or(true, |line| sender.send(line).is_err()) {
                    break;
                }
            }
        });
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(pipe) = errors {
                // What was read before a failure is still worth showing.
                let _ = pipe.take(64 * 1024).read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        Ok(Self {
            process,
            name,
            input,
            lines,
            errors: Some(errors),
        })
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The next line that the child prints.
    pub fn line(&mut self, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            check_interrupt()?;
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(GLANCE)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => return Err(self.failure()),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    let (name, seconds) = (&self.name, limit.as_secs_f64());
                    return Err(Error::Failed(format!(
                        "{name}: no answer within {seconds} s"
                    )));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// The next line as JSON.
    pub fn json<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T> {
        let line = self.line(limit)?;
        serde_json::from_str(&line).context(format!("{}: unexpected answer {line}", self.name))
    }

    /// Sends an empty line, which is a question.
    pub fn ask(&mut self) -> Result<()> {
        match &mut self.input {
            Some(input) => input
                .write_all(b"\n")
                .and_then(|()| input.flush())
                .map_err(|_| self.failure()),
            None => Err(self.failure()),
        }
    }

    /// Why the child has closed its output: its error text and how it ended.
    fn failure(&mut self) -> Error {
        let status = self.reap(EXIT_TIME);
        let text = self
            .errors
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        Error::Failed(match (text, status) {
            ("", Some(status)) => format!("{} ended without a result: {status}", self.name),
            ("", None) => format!("{} ended without a result", self.name),
            (text, _) => format!("{}: {text}", self.name),
        })
    }

    /// Gives the process `patience` to exit by itself, then kills it, and reaps it.
    fn reap(&mut self, patience: Duration) -> Option<std::process::ExitStatus> {
        drop(self.input.take());
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(1));
        }
        // Fails only for a process that has already gone.
        let _ = self.process.kill();
        self.process.wait().ok()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.reap(Duration::ZERO);
    }
}

/// Ctrl-C in a terminal reaches a whole process group: with one of their own, children are ended
/// by their parent and not in the middle of an answer to it.
#[cfg(unix)]
fn own_group(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

#[cfg(not(unix))]
fn own_group(_command: &mut Command) {}
