//! TLS from the command line: `netsys cert`, `serve --self-signed`, certificates from files, and
//! OpenSSL's opinion of all that.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use common::load::{Kind, Requests, trusting};
use common::{Server, connect, ended, netsys, run};
use network_system::Backoff;
use rustix::process::Signal;

/// `netsys cert` in a folder.
fn cert(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = netsys();
    command.arg("cert").arg("--out").arg(folder).args(arguments);
    run(command, b"")
}

/// The path of a file in a folder, as text.
fn file(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

fn openssl(arguments: &[&str]) -> (String, String) {
    let mut command = Command::new("openssl");
    command.args(arguments);
    ended(&run(command, b""), 0)
}

/// A server with the certificate in a folder, and more options.
fn serve(folder: &Path, more: &[&str]) -> Server {
    let (cert, key) = (file(folder, "server.pem"), file(folder, "server.key"));
    let address = ["--listen", "tls://127.0.0.1:0"];
    let files = ["--tls-cert", &cert, "--tls-key", &key];
    Server::start_with(&[&address[..], &files, more].concat())
}

/// The serial number that a server shows to OpenSSL.
fn serial(server: &Server) -> String {
    let mut command = Command::new("openssl");
    let address = format!("127.0.0.1:{}", server.port());
    command.args(["s_client", "-connect", &address]);
    let output = run(command, b"");
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-serial"]);
    ended(&run(command, &output.stdout), 0).0
}

#[test]
fn openssl_accepts_what_cert_makes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let names = ["dev.example", "*.dev.example", "192.0.2.1", "--days", "7"];
    let (out, _) = ended(
        &cert(folder, &[&names[..], &["--client", "alice"]].concat()),
        0,
    );
    assert!(out.contains("netsys serve --listen tls://"), "{out}");
    let ca = file(folder, "ca.pem");
    for (name, purpose) in [("server", "sslserver"), ("alice", "sslclient")] {
        let certificate = file(folder, &format!("{name}.pem"));
        let check = [
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
            &ca,
        ];
        let (out, _) = openssl(&[&check[..], &[&certificate]].concat());
        assert_eq!(out, format!("{certificate}: OK\n"));
        // not for the other purpose
        let mut command = Command::new("openssl");
        let other = if name == "alice" {
            "sslserver"
        } else {
            "sslclient"
        };
        command.args(["verify", "-purpose", other, "-CAfile", &ca, &certificate]);
        assert!(!run(command, b"").status.success());
        // it ends within the week, and not today
        let days = |n: u32| {
            let mut command = Command::new("openssl");
            let seconds = (n * 24 * 3600).to_string();
            command.args(["x509", "-noout", "-checkend", &seconds, "-in", &certificate]);
            run(command, b"").status.success()
        };
        assert!(days(6) && !days(8));
        let key = folder.join(format!("{name}.key"));
        let mode = key.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", key.display());
    }
    let server = file(folder, "server.pem");
    let (text, _) = openssl(&["x509", "-noout", "-ext", "subjectAltName", "-in", &server]);
    let names = "DNS:dev.example, DNS:*.dev.example, IP Address:192.0.2.1";
    assert!(text.contains(names), "{text}");

    // what is there stays, and the authority is used again
    let before = std::fs::read(folder.join("server.pem")).unwrap();
    let (_, err) = ended(&cert(folder, &[]), 2);
    assert!(err.contains("is there already; --force"), "{err}");
    assert_eq!(std::fs::read(folder.join("server.pem")).unwrap(), before);
    let authority = std::fs::read(folder.join("ca.pem")).unwrap();
    ended(&cert(folder, &["--force"]), 0);
    assert_ne!(std::fs::read(folder.join("server.pem")).unwrap(), before);
    assert_eq!(std::fs::read(folder.join("ca.pem")).unwrap(), authority);
    openssl(&["verify", "-CAfile", &ca, &server]);
    let (_, err) = ended(&cert(folder, &["--force", "--client", "../x"]), 2);
    assert!(err.contains("no name for a file"), "{err}");
    for clash in ["server", "Server"] {
        let (_, err) = ended(&cert(folder, &["--force", "--client", clash]), 2);
        assert!(err.contains("two certificates would be in"), "{err}");
    }
    let (_, err) = ended(&cert(folder, &["--force", "--client", "CA"]), 2);
    assert!(err.contains("no name for a file"), "{err}");
    // a link is a file that is there, also where what it means is not
    let other = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/no/such/file", other.path().join("bob.key")).unwrap();
    let (_, err) = ended(&cert(other.path(), &["--client", "bob"]), 2);
    assert!(err.contains("bob.key is there already"), "{err}");
    // somebody else's authority is left alone
    std::fs::copy(&server, &ca).unwrap();
    let (_, err) = ended(&cert(folder, &["--force"]), 2);
    assert!(err.contains("was not made by `netsys cert`"), "{err}");
}

#[test]
fn certificates_from_files_and_who_may_connect() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ended(&cert(folder, &["--client", "alice"]), 0);
    let ca = file(folder, "ca.pem");
    let server = serve(folder, &["--workers", "2"]);
    let url = server.url.replace("127.0.0.1", "localhost");
    let (out, err) = ended(&connect(&["--ca", &ca, &url], b"one\ntwo\n"), 0);
    assert_eq!((out.as_str(), err.as_str()), ("one\ntwo\n", ""));
    // who does not know the authority does not trust
    let (_, err) = ended(&connect(&[&url], b"one\n"), 3);
    assert!(err.contains("[-605]") && err.contains("(ca"), "{err}");
    let (_, err) = ended(
        &connect(
            &["--ca", &ca, "--server-name", "other.example", &url],
            b"one\n",
        ),
        3,
    );
    assert!(
        err.contains("is not for other.example, but for localhost, 127.0.0.1"),
        "{err}"
    );
    // a client without TLS
    let plain = url.replace("tls:", "tcp:");
    let output = connect(&[&plain], b"one\n");
    assert!(!output.status.success());

    let server = serve(folder, &["--client-ca", &ca]);
    let url = server.url.replace("127.0.0.1", "localhost");
    let output = connect(&["--ca", &ca, &url], b"one\n");
    let (_, err) = ended(&output, 3);
    assert!(
        err.contains("[-605]") && err.contains("asks for one"),
        "{err}"
    );
    let (cert, key) = (file(folder, "alice.pem"), file(folder, "alice.key"));
    let who = ["--ca", &ca, "--cert", &cert, "--key", &key, &url];
    let (out, _) = ended(&connect(&who, b"it is me\n"), 0);
    assert_eq!(out, "it is me\n");
}

/// Where nothing else is said, those are trusted that the system trusts; here these are all.
#[cfg(target_os = "linux")]
#[test]
fn the_systems_authorities() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ended(&cert(folder, &[]), 0);
    let server = serve(folder, &[]);
    let url = server.url.replace("127.0.0.1", "localhost");
    let mut command = netsys();
    command.args(["connect", "--timeout", "60s", &url]);
    command.env("SSL_CERT_FILE", file(folder, "ca.pem"));
    let (out, _) = ended(&run(command, b"hello\n"), 0);
    assert_eq!(out, "hello\n");
    let mut command = netsys();
    command.args(["connect", "--timeout", "60s", &url]);
    command.env("SSL_CERT_FILE", "/no/such/file");
    command.env("SSL_CERT_DIR", folder.join("nothing"));
    let (_, err) = ended(&run(command, b"hello\n"), 2);
    assert!(err.contains("the system's authorities"), "{err}");
}

#[test]
fn a_hangup_reads_certificates_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ended(&cert(folder, &[]), 0);
    let mut server = serve(folder, &["--stats-interval", "off"]);
    let first = serial(&server);
    ended(&cert(folder, &["--force"]), 0);
    server.process.signal(Signal::HUP);
    let event = server.event(|event| event["event"] == "reloaded");
    assert_eq!(event["error"], serde_json::Value::Null);
    let second = serial(&server);
    assert_ne!(first, second);

    let key = file(folder, "server.key");
    std::fs::write(&key, "no key at all").unwrap();
    server.process.signal(Signal::HUP);
    let event = server.event(|event| event["event"] == "reloaded");
    let error = event["error"].as_str().unwrap();
    assert!(
        error.contains(&key) && error.contains("none in it"),
        "{error}"
    );
    assert_eq!(serial(&server), second);
    server.process.terminate();
    let (status, _, err) = server.process.end();
    assert!(status.success());
    assert!(err.contains("the old certificates stay in use"), "{err}");
    assert!(err.contains(&key), "{err}");
}

/// New certificates under clients that stay and clients that come, none of whose requests fails. With
/// `reload_interval = "off"`, so that it is the signal that does it.
#[test]
fn certificates_change_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ended(&cert(folder, &[]), 0);
    let config = file(folder, "netsys.toml");
    let off = "[server]\ntls.reload_interval = \"off\"\nsession.envelope = true\n";
    std::fs::write(&config, off).unwrap();
    let quiet = ["--stats-interval", "off", "--workers", "2"];
    let mut server = serve(folder, &[&quiet[..], &["--config", &config]].concat());
    let mut clients = trusting(&file(folder, "ca.pem"));
    // a connection that is lost is a failure
    clients.reconnect = Backoff::never();
    let kinds = [Kind::Lasting, Kind::Lasting, Kind::Fresh, Kind::Fresh];
    let url = format!("tls://localhost:{}", server.port());
    let load = Requests::start(&url, &clients, &kinds);
    load.more(10);
    let hang_up = |server: &mut Server| {
        server.process.signal(Signal::HUP);
        let event = server.event(|event| event["event"] == "reloaded");
        load.more(10);
        event["error"].as_str().map(ToOwned::to_owned)
    };
    let serial_of = |name| {
        let file = file(folder, name);
        openssl(&["x509", "-noout", "-serial", "-in", &file]).0
    };
    let mut before = serial(&server);
    for _ in 0..5 {
        ended(&cert(folder, &["--force"]), 0);
        assert_eq!(serial(&server), before, "nobody has said so yet");
        assert_eq!(hang_up(&mut server), None);
        let now = serial(&server);
        assert_ne!(now, before);
        assert_eq!(now, serial_of("server.pem"));
        before = now;
    }
    // half of a new pair, then no pair
    let other = tempfile::tempdir().unwrap();
    ended(&cert(other.path(), &[]), 0);
    std::fs::copy(other.path().join("server.key"), folder.join("server.key")).unwrap();
    let error = hang_up(&mut server).unwrap();
    assert!(error.contains("it is not the key of"), "{error}");
    assert_eq!(serial(&server), before);
    std::fs::write(folder.join("server.pem"), "nothing").unwrap();
    let error = hang_up(&mut server).unwrap();
    assert!(error.contains("server.pem"), "{error}");
    assert_eq!(serial(&server), before);
    ended(&cert(folder, &["--force"]), 0);
    assert_eq!(hang_up(&mut server), None);
    assert_eq!(serial(&server), serial_of("server.pem"));

    let all = load.finish();
    server.process.terminate();
    let report = server.event(|event| event["event"] == "drained");
    assert_eq!(report["cut"], 0, "{report}");
    let statistics = &report["statistics"];
    assert_eq!(statistics["messages_in"], all, "{report}");
    for (reason, count) in statistics["connections_refused"].as_object().unwrap() {
        assert_eq!(count, 0, "{reason}");
    }
    let (_, _, err) = server.process.end();
    assert_eq!(
        err.matches("the old certificates stay in use").count(),
        2,
        "{err}"
    );
}

#[test]
fn a_certificate_of_its_own() {
    let server = Server::start_with(&["--self-signed", "--listen", "tls://127.0.0.1:0"]);
    let (out, err) = ended(
        &server.connect(&["--danger-trust-any-certificate"], b"hello\n"),
        0,
    );
    assert_eq!(out, "hello\n");
    assert!(err.contains("DANGER"), "{err}");
    let (_, err) = ended(&server.connect(&[], b"hello\n"), 3);
    assert!(err.contains("[-605]"), "{err}");
    // it is for the address that it listens on
    let mut command = Command::new("openssl");
    let address = format!("127.0.0.1:{}", server.port());
    command.args(["s_client", "-connect", &address, "-verify_ip", "127.0.0.1"]);
    let (out, _) = ended(&run(command, b""), 0);
    assert!(
        out.contains("self-signed certificate") && !out.contains("mismatch"),
        "{out}"
    );

    let mut command = netsys();
    command.args(["serve", "--self-signed", "--listen", "tcp://127.0.0.1:0"]);
    let (_, err) = ended(&run(command, b""), 2);
    assert!(err.contains("needs an address with TLS"), "{err}");
    let mut command = netsys();
    command.args(["serve", "--listen", "tls://127.0.0.1:0"]);
    let (_, err) = ended(&run(command, b""), 2);
    assert!(err.contains("needs a certificate and its key"), "{err}");
}
