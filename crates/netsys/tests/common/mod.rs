//! What the tests share: the real program as a server and as a client, ended whatever happens.
#![allow(dead_code)] // not every test needs all of it
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

pub mod load;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// Nothing that works takes this long, on a slow and busy machine either.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The program, without what the environment of the tests might add.
pub fn netsys() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netsys"));
    command.env_remove("NETSYS_CONFIG").env_remove("NETSYS_LOG");
    command
}

/// A process that ends with the test, and its output line by line.
pub struct Running {
    pub child: Child,
    lines: Receiver<String>,
    errors: Option<thread::JoinHandle<String>>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start netsys");
        let (sender, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            out.lines()
                .map_while(Result::ok)
                .try_for_each(|l| sender.send(l))
        });
        let mut err = child.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut text = String::new();
            let _ = err.read_to_string(&mut text);
            text
        });
        Self {
            child,
            lines,
            errors: Some(errors),
        }
    }

    /// The next line of its output.
    #[track_caller]
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(LIMIT) {
            Ok(line) => line,
            Err(_) => {
                let _ = self.child.kill();
                panic!("no more output; standard error: {}", self.errors())
            }
        }
    }

    /// The rest of its output, to the end.
    pub fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.lines.recv_timeout(LIMIT).ok()).collect()
    }

    fn errors(&mut self) -> String {
        self.errors
            .take()
            .map_or_else(String::new, |errors| errors.join().unwrap())
    }

    pub fn say(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().expect("standard input is open");
        input.write_all(text.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    pub fn end_input(&mut self) {
        self.child.stdin = None;
    }

    /// Waits for the end; fails the test when there is none.
    #[track_caller]
    pub fn end(mut self) -> (ExitStatus, Vec<String>, String) {
        // the output ends with the process
        let rest = self.rest();
        let status = self.child.wait().unwrap();
        (status, rest, self.errors())
    }

    #[cfg(unix)]
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    #[cfg(unix)]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `netsys serve --json` on a free port.
pub struct Server {
    pub process: Running,
    pub url: String,
    pub listening: Value,
}

impl Server {
    pub fn start(arguments: &[&str]) -> Self {
        let mut all = vec!["--listen", "tcp://127.0.0.1:0"];
        all.extend(arguments);
        Self::start_with(&all)
    }

    /// Without an address of its own.
    #[track_caller]
    pub fn start_with(arguments: &[&str]) -> Self {
        let mut command = netsys();
        command.args(["serve", "--json"]).args(arguments);
        let mut process = Running::start(command);
        let listening: Value = serde_json::from_str(&process.line()).unwrap();
        assert_eq!(listening["event"], "listening");
        let url = listening["address"].as_str().unwrap().to_owned();
        Self {
            process,
            url,
            listening,
        }
    }

    pub fn port(&self) -> u16 {
        let place = self.url.split('?').next().unwrap();
        place.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// The next line that `wanted` picks.
    #[track_caller]
    pub fn event(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event: Value = serde_json::from_str(&self.process.line()).unwrap();
            if wanted(&event) {
                return event;
            }
        }
    }

    /// Runs `netsys connect` to this server with `input`, to its end.
    pub fn connect(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut all = arguments.to_vec();
        all.push(&self.url);
        connect(&all, input)
    }
}

/// Runs `netsys connect` with `input`, to its end, which comes.
pub fn connect(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = netsys();
    command.arg("connect").args(arguments);
    if !arguments.contains(&"--timeout") {
        command.args(["--timeout", "60s"]);
    }
    run(command, input)
}

/// Runs a program with `input` to its end.
pub fn run(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // a program that reads no input to its end is fine
    let feeding = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    output
}

/// The output of a program that has ended with `code`.
#[track_caller]
pub fn ended(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "out: {out}\nerr: {err}");
    (out, err)
}

/// The bytes of one message in the default framing, made without the library.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads one message in the default framing.
pub fn read_frame(io: &mut impl Read) -> Vec<u8> {
    let mut length = [0; 4];
    io.read_exact(&mut length).unwrap();
    let mut payload = vec![0; u32::from_be_bytes(length) as usize];
    io.read_exact(&mut payload).unwrap();
    payload
}
