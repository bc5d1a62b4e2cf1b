//! Keys of Noise that are replaced under a server that goes on: SIGHUP, as for certificates.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::path::Path;

use common::{Running, Server, connect, ended, netsys, run};
use rustix::process::Signal;

/// A new key in a file of this name; its public key.
fn new_key(folder: &Path, name: &str) -> String {
    let file = folder.join(name);
    let mut command = netsys();
    command.arg("noise-key").arg(&file);
    ended(&run(command, b""), 0).0.trim().to_owned()
}

/// SIGHUP; what was wrong.
fn hang_up(server: &mut Server) -> Option<String> {
    server.process.signal(Signal::HUP);
    let event = server.event(|event| event["event"] == "reloaded");
    event["error"].as_str().map(ToOwned::to_owned)
}

/// Whether somebody with these options can talk to it.
fn talks(server: &Server, options: &[&str]) -> bool {
    let url = format!("tcp://127.0.0.1:{}", server.port());
    let arguments = [options, &["--count", "1", &url]].concat();
    let output = connect(&arguments, b"hello\n");
    let heard = output.stdout == b"hello\n";
    assert_eq!(output.status.success(), heard, "{output:?}");
    heard
}

#[test]
fn a_hangup_reads_the_shared_key_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (first, second, used) = (path("first"), path("second"), path("used"));
    new_key(folder, "first");
    new_key(folder, "second");
    std::fs::copy(&first, &used).unwrap();
    let mut server = Server::start(&["--stats-interval", "off", "--noise-psk-file", &used]);
    let with = |key: &str| ["--noise-psk-file".to_owned(), key.to_owned()];
    let works = |server: &Server, key: &str| {
        let options = with(key);
        talks(server, &[&options[0], &options[1]])
    };
    let mut command = netsys();
    command.arg("connect").args(with(&first)).arg(&server.url);
    let mut old = Running::start(command);
    old.say("hello\n");
    assert_eq!(old.line(), "hello");

    std::fs::copy(&second, &used).unwrap();
    assert!(works(&server, &first), "nobody has said so yet");
    assert_eq!(hang_up(&mut server), None);
    assert!(works(&server, &second) && !works(&server, &first));
    old.say("still here\n");
    assert_eq!(old.line(), "still here");

    std::fs::write(&used, "no key").unwrap();
    let error = hang_up(&mut server).unwrap();
    assert!(
        error.contains(&used) && error.contains("64 hexa"),
        "{error}"
    );
    assert!(works(&server, &second));
    old.say("and on\n");
    assert_eq!(old.line(), "and on");
    old.end_input();
    assert!(old.end().0.success());
    server.process.terminate();
    let (status, _, err) = server.process.end();
    assert!(status.success());
    assert!(
        err.contains("the old keys stay in use") && err.contains(&used),
        "{err}"
    );
}

#[test]
fn a_hangup_reads_the_servers_own_key_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let publics = ["first", "second", "client"].map(|name| new_key(folder, name));
    let [first, second, client] = &publics;
    let used = path("used");
    std::fs::copy(path("first"), &used).unwrap();
    let own = ["--noise-key-file", &used, "--noise-peer", client];
    let mut server = Server::start(&[&["--stats-interval", "off"][..], &own].concat());
    let key = path("client");
    let expects = |server: &Server, public: &str| {
        talks(server, &["--noise-key-file", &key, "--noise-peer", public])
    };
    assert!(expects(&server, first) && !expects(&server, second));
    std::fs::copy(path("second"), &used).unwrap();
    assert_eq!(hang_up(&mut server), None);
    assert!(expects(&server, second) && !expects(&server, first));
}
