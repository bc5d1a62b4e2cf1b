//! Restarts of `netsys serve` under load, and sockets from systemd: nobody is turned away.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use common::load::{Kind, Requests, trusting};
use common::{LIMIT, Running, Server, frame, netsys, read_frame};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A server whose processes follow each other; the last one is ended with the test.
struct Line {
    server: Server,
    pid: Pid,
}

impl Line {
    fn new(server: Server) -> Self {
        let pid = Pid::from_child(&server.process.child);
        Self { server, pid }
    }

    /// Restarts it, and waits until the old process has drained: its report.
    fn restart(&mut self) -> Value {
        let old = self.pid;
        kill_process(old, Signal::USR2).unwrap();
        let (mut new, mut report) = (None, None);
        while new.is_none() || report.is_none() {
            let event = self.server.event(|event| event["event"] != "statistics");
            match event["event"].as_str().unwrap() {
                "listening" => assert_eq!(event["address"], self.server.listening["address"]),
                "restarted" => {
                    let pid = event["pid"].as_i64().unwrap_or_else(|| panic!("{event}"));
                    new = Pid::from_raw(i32::try_from(pid).unwrap());
                }
                "drained" => report = Some(event),
                _ => {}
            }
        }
        self.pid = new.unwrap();
        assert_ne!(self.pid, old);
        report.unwrap()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

/// Threads that connect, ask, and close, again and again.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

trait Stream: std::io::Read + std::io::Write {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

impl Load {
    fn start<S: Stream>(
        threads: usize,
        connect: impl Fn() -> std::io::Result<S> + Send + Clone + 'static,
    ) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let one = |n| {
            let (stop, done, connect) = (stop.clone(), done.clone(), connect.clone());
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                for round in 0.. {
                    if stop.load(Relaxed) || failures.len() > 5 {
                        break;
                    }
                    let text = format!("{n} {round}");
                    match ask(&connect, text.as_bytes()) {
                        Ok(()) => drop(done.fetch_add(1, Relaxed)),
                        Err(error) => failures.push(format!("{text}: {error}")),
                    }
                }
                failures
            })
        };
        let threads = (0..threads).map(one).collect();
        Self {
            stop,
            done,
            threads,
        }
    }

    /// Waits for so many more.
    fn more(&self, count: u64) {
        let until = self.done.load(Relaxed) + count;
        let began = std::time::Instant::now();
        while self.done.load(Relaxed) < until {
            assert!(began.elapsed() < LIMIT, "the load does not get on");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Relaxed);
        for thread in self.threads {
            assert_eq!(thread.join().unwrap(), Vec::<String>::new());
        }
        self.done.load(Relaxed)
    }
}

fn ask<S: Stream>(connect: impl Fn() -> std::io::Result<S>, payload: &[u8]) -> std::io::Result<()> {
    let mut stream = connect()?;
    stream.write_all(&frame(payload))?;
    let mut back = vec![0; payload.len() + 4];
    stream.read_exact(&mut back)?;
    assert_eq!(back, frame(payload));
    Ok(())
}

/// How many sockets this process has that listen, as `/proc` shows its descriptors.
fn sockets(pid: Pid) -> usize {
    let folder = format!("/proc/{}/fd", pid.as_raw_nonzero());
    let entries = std::fs::read_dir(folder).unwrap();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("socket:"))
        .count()
}

#[test]
fn restarts_under_load_turn_nobody_away() {
    for workers in ["0", "1", "3"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netsys.sock");
        let unix = format!("unix://{}", path.display());
        let mut line = Line::new(Server::start(&["--listen", &unix, "--workers", workers]));
        let address = ("127.0.0.1", line.server.port());
        let tcp = Load::start(3, move || TcpStream::connect(address));
        let file = path.clone();
        let local = Load::start(1, move || UnixStream::connect(&file));
        tcp.more(50);
        let mut counts = Vec::new();
        for _ in 0..4 {
            let report = line.restart();
            assert_eq!(report["cut"], 0, "{report}");
            tcp.more(50);
            local.more(50);
        }
        assert!(path.exists());
        let all = (tcp.finish(), local.finish());
        assert!(all.0 >= 250 && all.1 >= 200, "{all:?}");
        // nothing is left over from one process to the next
        for _ in 0..2 {
            line.restart();
            counts.push(sockets(line.pid));
        }
        assert_eq!(counts[0], counts[1]);
        kill_process(line.pid, Signal::TERM).unwrap();
        line.server.event(|event| event["event"] == "drained");
        let began = std::time::Instant::now();
        while path.exists() {
            assert!(began.elapsed() < LIMIT, "the socket file stays");
            std::thread::yield_now();
        }
    }
}

/// With TLS: clients that stay, which the goaway of the envelope sends to the new process, clients that
/// come, and some without the envelope, which cannot be told. The certificate may be a new one, too.
#[test]
fn restarts_under_load_with_tls_fail_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let certify = || {
        let mut command = netsys();
        command.args(["cert", "--force", "--out", &path("")]);
        common::ended(&common::run(command, b""), 0);
    };
    for workers in ["0", "1", "3"] {
        certify();
        let (cert, key) = (path("server.pem"), path("server.key"));
        let mut arguments = vec!["--workers", workers, "--tls-cert", &cert, "--tls-key", &key];
        arguments.extend(["--listen", "tls://127.0.0.1:0?envelope=true"]);
        arguments.extend(["--listen", "tls://127.0.0.1:0"]);
        let mut line = Line::new(Server::start_with(&arguments));
        let port = |n: usize| {
            let address = line.server.listening["addresses"][n].as_str().unwrap();
            let place = address.split('?').next().unwrap();
            place.rsplit(':').next().unwrap().to_owned()
        };
        let config = trusting(&path("ca.pem"));
        let with = format!("tls://localhost:{}", port(0));
        let without = format!("tls://localhost:{}", port(1));
        let staying = [Kind::Lasting; 4];
        let kinds = [&staying[..], &[Kind::Fresh, Kind::Fresh]].concat();
        let load = Requests::start(&with, &config, &kinds);
        let plain = Requests::start(&without, &config, &[Kind::Plain, Kind::Plain]);
        for _ in 0..4 {
            load.more(20);
            plain.more(20);
            certify();
            let report = line.restart();
            assert_eq!(report["cut"], 0, "{report}");
            // those who stay were there, and have gone to the next one
            let sessions = report["sessions"].as_u64().unwrap();
            assert!(sessions >= staying.len() as u64, "{report}");
            assert_eq!(report["statistics"]["connections_refused"]["handshake"], 0);
        }
        load.more(20);
        let all = (load.finish(), plain.finish());
        let least = (5 * 20 * kinds.len() as u64, 4 * 20 * 2);
        assert!(all.0 >= least.0 && all.1 >= least.1, "{all:?}");
    }
}

/// More workers, or fewer: every socket is taken over, so that nothing that waits on one is lost.
#[test]
fn the_number_of_workers_may_change() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("netsys.toml");
    let set = |workers: usize| {
        std::fs::write(&config, format!("[server]\nworkers = {workers}\n")).unwrap();
    };
    set(3);
    let mut line = Line::new(Server::start(&["--config", config.to_str().unwrap()]));
    let address = ("127.0.0.1", line.server.port());
    let load = Load::start(3, move || TcpStream::connect(address));
    for workers in [1, 4, 2, 5] {
        set(workers);
        line.restart();
        load.more(100);
    }
    load.finish();
}

#[test]
fn a_new_process_that_does_not_start_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("netsys.toml");
    let path = folder.path().join("netsys.sock");
    let unix = format!("unix://{}", path.display());
    let with = |more: &str| {
        let text = format!("[server]\nlisten = [\"tcp://127.0.0.1:0\", \"{unix}\"{more}]\n");
        std::fs::write(&config, text).unwrap();
    };
    with("");
    // a program of its own, which can be taken away
    let program = folder.path().join("netsys");
    std::fs::copy(env!("CARGO_BIN_EXE_netsys"), &program).unwrap();
    let mut command = Command::new(&program);
    command.env_remove("NETSYS_CONFIG").env_remove("NETSYS_LOG");
    command.args(["serve", "--json"]);
    command.args(["--config", config.to_str().unwrap()]);
    let mut process = Running::start(command);
    let listening: Value = serde_json::from_str(&process.line()).unwrap();
    let url = listening["address"].as_str().unwrap().to_owned();
    let mut line = Line::new(Server {
        process,
        url,
        listening,
    });
    let address = ("127.0.0.1", line.server.port());
    let load = Load::start(2, move || TcpStream::connect(address));
    let mut refused = |wanted: &str| {
        kill_process(line.pid, Signal::USR2).unwrap();
        let event = line.server.event(|event| event["event"] == "restarted");
        assert!(event["pid"].is_null(), "{event}");
        let error = event["error"].as_str().unwrap();
        assert!(error.contains(wanted), "{error}");
        load.more(20);
        ask(|| UnixStream::connect(&path), b"still here").unwrap();
    };
    std::fs::write(&config, "server.workers = -1").unwrap();
    refused("exit status: 2");
    // this one takes the sockets over, and fails then
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    with(&format!(", \"tcp://{}\"", taken.local_addr().unwrap()));
    refused("exit status: 3");
    with("");
    let away = folder.path().join("away");
    std::fs::rename(&program, &away).unwrap();
    refused("no such file");
    std::fs::rename(&away, &program).unwrap();
    line.restart();
    load.more(20);
    load.finish();
    assert!(path.exists());
}

/// Asked several times at once, it does it once, and the program that is asked to end meanwhile ends.
#[test]
fn several_signals_are_one_restart() {
    let mut line = Line::new(Server::start(&[]));
    kill_process(line.pid, Signal::USR2).unwrap();
    kill_process(line.pid, Signal::USR2).unwrap();
    let event = line.server.event(|event| event["event"] == "restarted");
    line.server.event(|event| event["event"] == "drained");
    line.pid = Pid::from_raw(i32::try_from(event["pid"].as_i64().unwrap()).unwrap()).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", line.server.port())).unwrap();
    stream.write_all(&frame(b"hello")).unwrap();
    assert_eq!(read_frame(&mut stream), b"hello");
}

/// systemd's own program gives the sockets, and a datagram socket is told what it wants to know.
#[test]
fn sockets_of_systemd() {
    let folder = tempfile::tempdir().unwrap();
    let notify = folder.path().join("notify");
    let told = UnixDatagram::bind(&notify).unwrap();
    told.set_read_timeout(Some(LIMIT)).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let path = folder.path().join("activated.sock");
    let activate = Path::new("/usr/bin/systemd-socket-activate");
    assert!(
        activate.exists(),
        "this test needs the Debian package systemd: run `scripts/test.sh --prepare`"
    );
    let mut command = Command::new(activate);
    command.args(["-l", &address.to_string(), "-l", path.to_str().unwrap()]);
    command.arg(format!("--setenv=NOTIFY_SOCKET={}", notify.display()));
    command.args([env!("CARGO_BIN_EXE_netsys"), "serve", "--json"]);
    command.args(["--listen", &format!("tcp://{address}"), "--workers", "2"]);
    command.args(["--listen", &format!("unix://{}", path.display())]);
    let mut process = Running::start(command);
    // it starts the program at the first connection
    let began = std::time::Instant::now();
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) => assert!(began.elapsed() < LIMIT, "{error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    let listening: Value = serde_json::from_str(&process.line()).unwrap();
    let url = listening["address"].as_str().unwrap().to_owned();
    let mut line = Line::new(Server {
        process,
        url,
        listening,
    });
    stream.write_all(&frame(b"hello")).unwrap();
    assert_eq!(read_frame(&mut stream), b"hello");
    let read = || {
        let mut buffer = [0; 256];
        let n = told.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    assert_eq!(read().trim_end(), "READY=1");
    let load = Load::start(2, move || TcpStream::connect(address));
    line.restart();
    let mut all = String::new();
    while !all.contains("MAINPID=") {
        all.push_str(&read());
    }
    assert!(all.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{all}");
    let pid = line.pid.as_raw_nonzero();
    assert!(all.contains(&format!("MAINPID={pid}\nREADY=1")), "{all}");
    line.restart();
    load.more(50);
    ask(|| UnixStream::connect(&path), b"and this one").unwrap();
    load.finish();
    kill_process(line.pid, Signal::TERM).unwrap();
    line.server.event(|event| event["event"] == "drained");
    // the file is systemd's
    assert!(path.exists());
}

/// Another supervisor has bound the socket and gives it under a number of its own choice.
#[test]
fn sockets_of_another_supervisor() {
    const SUPERVISOR: &str = "\
import os, socket, sys
first, program = int(sys.argv[1]), sys.argv[2]
listener = socket.create_server(('127.0.0.1', 0))
port = listener.getsockname()[1]
os.dup2(listener.fileno(), first, inheritable=True)
environment = dict(os.environ, LISTEN_FDS='1', LISTEN_FDS_FIRST_FD=str(first))
address = f'tcp://127.0.0.1:{port}'
os.execve(program, [program, 'serve', '--json', '--workers', '2', '--listen', address], environment)
";
    // as inetd and its kind do it, and circus
    for first in ["0", "17"] {
        let mut command = Command::new("python3");
        command
            .env_remove("NETSYS_CONFIG")
            .env_remove("NETSYS_LOG")
            .args(["-c", SUPERVISOR, first, env!("CARGO_BIN_EXE_netsys")]);
        let mut process = Running::start(command);
        let listening: Value = serde_json::from_str(&process.line()).unwrap();
        let url = listening["address"].as_str().unwrap().to_owned();
        let mut line = Line::new(Server {
            process,
            url,
            listening,
        });
        let address = ("127.0.0.1", line.server.port());
        let load = Load::start(2, move || TcpStream::connect(address));
        load.more(20);
        line.restart();
        load.more(20);
        line.restart();
        load.more(20);
        load.finish();
    }
    let mut command = netsys();
    command.args(["serve", "--listen", "tcp://127.0.0.1:0"]);
    command
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDS_FIRST_FD", "99");
    let (_, error) = common::ended(&common::run(command, b""), 2);
    assert!(error.contains("file descriptor 99"), "{error}");
}

/// What was meant for another process is not taken.
#[test]
fn sockets_for_another_process_are_left_alone() {
    for (name, value) in [("LISTEN_PID", "1"), ("NETWORK_SYSTEM_PARENT", "1")] {
        let mut command = netsys();
        command.args(["serve", "--json", "--listen", "tcp://127.0.0.1:0"]);
        // there is no such descriptor: it would be an error to look at it
        command.env("LISTEN_FDS", "1").env(name, value);
        let mut process = Running::start(command);
        assert!(process.line().contains("listening"));
    }
    let mut command = netsys();
    command.args(["serve", "--listen", "tcp://127.0.0.1:0"]);
    command.env("LISTEN_FDS", "1");
    let output = common::run(command, b"");
    let (_, error) = common::ended(&output, 2);
    assert!(error.contains("file descriptor 3"), "{error}");
}
