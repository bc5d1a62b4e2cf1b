//! Other people's TLS speaks with our servers and clients: OpenSSL's command line, and Python's
//! standard library.
//!
//! The programs must be there; `scripts/test.sh` installs them.
#![cfg(all(unix, feature = "tls"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use common::pki::{Pair, Pki};
use common::programs::{program, python, run};
use common::{Builder, Echo, echo_on, within};
use network_system::config::{ClientConfig, TlsClientConfig, TlsServerConfig, TlsVersion};
use network_system::{Connection, Error, ErrorKind, Framing, Message, connect_with};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// An echo server of lines with TLS.
async fn lines(tls: TlsServerConfig, configure: impl FnOnce(Builder) -> Builder) -> Echo {
    let address = "tls://127.0.0.1:0?framing=lines";
    echo_on(&[address], |builder| configure(builder.tls(tls))).await
}

/// What `openssl s_client` got back and said.
struct Said {
    answer: Option<String>,
    text: String,
    status: ExitStatus,
}

impl Said {
    #[track_caller]
    fn succeeded(&self, words: &[&str]) {
        assert!(self.status.success(), "{}: {}", self.status, self.text);
        assert_eq!(self.answer.as_deref(), Some("hello"), "{}", self.text);
        self.says(words);
    }

    #[track_caller]
    fn failed(&self, words: &[&str]) {
        assert!(self.answer.is_none(), "{}", self.text);
        self.says(words);
    }

    #[track_caller]
    fn says(&self, words: &[&str]) {
        for word in words {
            assert!(self.text.contains(word), "no '{word}' in: {}", self.text);
        }
    }
}

/// Connects with OpenSSL, which checks chain and name, sends a line, and waits for one.
async fn s_client(echo: &Echo, pki: &Pki, arguments: &[&str]) -> Said {
    let mut command = program("openssl", "openssl");
    command
        .args(["s_client", "-connect", &echo.address().to_string()])
        .args([
            "-no_ign_eof",
            "-nocommands",
            "-verify_return_error",
            "-CAfile",
        ])
        .arg(pki.ca())
        .args(arguments)
        .stderr(Stdio::piped());
    if !arguments.contains(&"-servername") {
        command.args(["-servername", "localhost", "-verify_hostname", "localhost"]);
    }
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // one that could not connect does not read it
    let _ = stdin.write_all(b"hello\n").await;
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut text, mut answer) = (String::new(), None);
    while let Some(line) = within(out.next_line()).await.unwrap() {
        // OpenSSL keeps back what it says itself, and writes what came in between
        if line.ends_with("hello") {
            answer = Some("hello".to_owned());
            break;
        }
        text += &line;
        text.push('\n');
    }
    drop(stdin);
    while let Some(line) = within(out.next_line()).await.unwrap() {
        text += &line;
        text.push('\n');
    }
    let mut err = child.stderr.take().unwrap();
    within(err.read_to_string(&mut text)).await.unwrap();
    let status = within(child.wait()).await.unwrap();
    Said {
        answer,
        text,
        status,
    }
}

#[tokio::test]
async fn openssl_with_both_versions() {
    let pki = Pki::new();
    for workers in [0, 1] {
        let tls = pki.issue(&["localhost"]).server().alpn(["lines"]);
        let mut echo = lines(tls, |builder| builder.workers(workers)).await;
        for (option, version, name) in [
            ("-tls1_3", TlsVersion::Tls13, "TLSv1.3"),
            ("-tls1_2", TlsVersion::Tls12, "TLSv1.2"),
        ] {
            let said = s_client(&echo, &pki, &[option, "-alpn", "other,lines"]).await;
            let cipher = format!("New, {name}, Cipher is");
            said.succeeded(&[&cipher, "Verification: OK", "ALPN protocol: lines"]);
            let end = within(echo.ends.recv()).await.unwrap();
            // its goodbye came before the end of the stream
            assert_eq!(end.reason.label(), "peer");
            let tls = end.session.info().tls.clone().unwrap();
            assert_eq!((tls.version, tls.peer.as_ref()), (version, None));
            assert_eq!(tls.server_name.as_deref(), Some("localhost"));
            assert_eq!(tls.alpn.as_deref(), Some("lines"));
        }
    }
}

#[tokio::test]
async fn openssl_gets_the_certificate_of_the_name() {
    let pki = Pki::new();
    let (one, two) = (pki.issue(&["localhost"]), pki.issue(&["*.two.example"]));
    let tls = one.server().certificate(&*two.certificate, &*two.key);
    let echo = lines(tls, |builder| builder).await;
    for (asked, got) in [
        ("localhost", "CN = localhost"),
        ("www.two.example", "CN = *.two.example"),
        ("three.example", "CN = localhost"),
    ] {
        let said = s_client(&echo, &pki, &["-servername", asked]).await;
        said.succeeded(&[got]);
    }
    let said = s_client(
        &echo,
        &pki,
        &[
            "-servername",
            "three.example",
            "-verify_hostname",
            "three.example",
        ],
    )
    .await;
    said.failed(&["hostname mismatch"]);
}

#[tokio::test]
async fn openssl_with_what_is_refused() {
    let pki = Pki::new();
    let tls = pki.issue(&["localhost"]).server().alpn(["lines"]);
    let mut echo = lines(tls, |builder| builder).await;
    let weak = "DEFAULT@SECLEVEL=0";
    for (arguments, theirs, ours) in [
        (
            &["-tls1_1", "-cipher", weak][..],
            "alert",
            "no common version of TLS",
        ),
        (
            &["-tls1", "-cipher", weak],
            "alert",
            "no common version of TLS",
        ),
        (
            &["-alpn", "h2"],
            "alert no application protocol",
            "application protocols",
        ),
        (
            &["-tls1_2", "-cipher", "AES128-SHA"],
            "alert handshake failure",
            "no common",
        ),
    ] {
        let said = s_client(&echo, &pki, arguments).await;
        said.failed(&[theirs]);
        let error = echo.next_error().await;
        assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
        assert!(error.to_string().contains(ours), "{error}");
    }
    assert_eq!(echo.server.statistics().connections_refused["handshake"], 4);

    let only_new = pki.issue(&["localhost"]).server();
    let only_new = only_new.min_version(TlsVersion::Tls13);
    let echo = lines(only_new, |builder| builder).await;
    let said = s_client(&echo, &pki, &["-tls1_2"]).await;
    said.failed(&["alert protocol version"]);
    s_client(&echo, &pki, &[]).await.succeeded(&["TLSv1.3"]);
}

/// The fingerprint as OpenSSL computes it.
async fn fingerprint(pair: &Pair) -> String {
    let mut command = program("openssl", "openssl");
    command.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]);
    command.arg(&pair.certificate);
    let (output, _) = run(command, b"").await;
    let text = String::from_utf8(output).unwrap();
    text.trim().split_once('=').unwrap().1.to_owned()
}

#[tokio::test]
async fn openssl_with_client_certificates() {
    let pki = Pki::new();
    let tls = pki.issue(&["localhost"]).server().client_ca(pki.ca());
    let mut echo = lines(tls, |builder| builder).await;
    let alice = pki.issue(&["alice", "alice.example", "192.0.2.7"]);
    for option in ["-tls1_2", "-tls1_3"] {
        let (certificate, key) = alice.paths();
        let arguments = [option, "-cert", certificate, "-key", key];
        s_client(&echo, &pki, &arguments).await.succeeded(&[]);
        let end = within(echo.ends.recv()).await.unwrap();
        let tls = end.session.info().tls.clone().unwrap();
        let peer = tls.peer.as_ref().unwrap();
        assert_eq!(peer.fingerprint_text(), fingerprint(&alice).await);
        assert!(peer.subject.contains("CN=alice"), "{peer:?}");
        assert_eq!(peer.names, ["alice", "alice.example", "192.0.2.7"]);

        let said = s_client(&echo, &pki, &[option]).await;
        said.failed(&["alert"]);
        let error = echo.next_error().await;
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        let others = Pki::named("Others");
        let eve = others.issue(&["eve"]);
        let (certificate, key) = eve.paths();
        let arguments = [option, "-cert", certificate, "-key", key];
        s_client(&echo, &pki, &arguments)
            .await
            .failed(&["alert unknown ca"]);
        let error = echo.next_error().await;
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    }
}

#[tokio::test]
async fn openssl_resumes_its_session() {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost"]);
    let mut tls = pair.server();
    tls.reload_interval = None;
    let echo = lines(tls, |builder| builder).await;
    for (option, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let file = pki.folder().join(name);
        let file = file.to_str().unwrap();
        let reused = format!("Reused, {name}");
        s_client(&echo, &pki, &[option, "-sess_out", file])
            .await
            .succeeded(&["New, "]);
        let said = s_client(&echo, &pki, &[option, "-sess_in", file]).await;
        said.succeeded(&[&reused]);
        // new certificates leave sessions that are there alone
        pair.replace_with(&pki.issue(&["localhost"]));
        echo.server.reload().unwrap();
        let said = s_client(&echo, &pki, &[option, "-sess_in", file]).await;
        said.succeeded(&[&reused]);
    }
    let mut tls = pair.server();
    tls.resumption = false;
    let echo = lines(tls, |builder| builder).await;
    let file = pki.folder().join("none");
    let file = file.to_str().unwrap();
    s_client(&echo, &pki, &["-sess_out", file])
        .await
        .succeeded(&[]);
    assert!(!std::path::Path::new(file).exists(), "there was a session");
}

#[tokio::test]
async fn openssl_sees_new_certificates() {
    let pki = Pki::new();
    let pair = pki.issue_with(&["localhost"], |params| {
        params.serial_number = Some(0xAAAA_u64.into());
    });
    let mut tls = pair.server();
    tls.reload_interval = Some(Duration::from_millis(1));
    let echo = lines(tls, |builder| builder).await;
    let serial = async || {
        let mut command = program("openssl", "openssl");
        command
            .args(["s_client", "-connect", &echo.address().to_string()])
            .args(["-servername", "localhost"])
            .stderr(Stdio::null());
        let (output, _) = run(command, b"").await;
        let mut command = program("openssl", "openssl");
        command.args(["x509", "-noout", "-serial"]);
        String::from_utf8(run(command, &output).await.0).unwrap()
    };
    assert_eq!(serial().await, "serial=AAAA\n");
    std::fs::write(&pair.key, "broken").unwrap();
    assert_eq!(serial().await, "serial=AAAA\n");
    pair.replace_with(&pki.issue_with(&["localhost"], |params| {
        params.serial_number = Some(0xBBBB_u64.into());
    }));
    let until = tokio::time::Instant::now() + common::LIMIT;
    while serial().await != "serial=BBBB\n" {
        assert!(tokio::time::Instant::now() < until, "not noticed");
    }
}

/// `openssl s_server`, which sends each line back reversed, and its port.
async fn s_server(pair: &Pair, arguments: &[&str]) -> (Child, BufReader<ChildStdout>, u16) {
    let (certificate, key) = pair.paths();
    let mut command = program("openssl", "openssl");
    command
        .args([
            "s_server",
            "-accept",
            "127.0.0.1:0",
            "-rev",
            "-naccept",
            "1",
        ])
        .args(["-cert", certificate, "-key", key])
        .args(arguments)
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let port = loop {
        let mut line = String::new();
        assert!(
            within(out.read_line(&mut line)).await.unwrap() > 0,
            "no port"
        );
        if let Some(address) = line.trim().strip_prefix("ACCEPT ") {
            break address.rsplit_once(':').unwrap().1.parse().unwrap();
        }
    };
    (child, out, port)
}

async fn dial(port: u16, framing: &str, tls: TlsClientConfig) -> Result<Connection, Error> {
    let config = ClientConfig {
        tls,
        ..ClientConfig::default()
    };
    let url = format!("tls://localhost:{port}?framing={framing}");
    within(connect_with(&url, &config)).await
}

async fn ask(connection: &mut Connection, text: &str) -> Result<Option<Message>, Error> {
    connection.send(text).await?;
    within(connection.receive()).await
}

#[tokio::test]
async fn openssl_as_the_server() {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost"]);
    for (option, version) in [
        ("-tls1_2", TlsVersion::Tls12),
        ("-tls1_3", TlsVersion::Tls13),
    ] {
        let arguments = [option, "-alpn", "lines"];
        let (mut child, _out, port) = s_server(&pair, &arguments).await;
        let mut connection = dial(port, "lines", pki.client().alpn(["lines"]))
            .await
            .unwrap();
        let answer = ask(&mut connection, "hello").await.unwrap();
        assert_eq!(answer.unwrap(), "olleh");
        let tls = connection.info().tls.clone().unwrap();
        assert_eq!((tls.version, tls.alpn.as_deref()), (version, Some("lines")));
        let peer = tls.peer.as_ref().unwrap();
        assert_eq!(peer.fingerprint_text(), fingerprint(&pair).await);
        connection.close().await.unwrap();
        within(child.wait()).await.unwrap();
    }
}

#[tokio::test]
async fn openssl_as_a_server_that_is_not_trusted() {
    let pki = Pki::new();
    let revoked = pki.issue(&["localhost"]);
    let list = pki.revoke(&[&revoked]);
    for (pair, words) in [
        (pki.expired(&["localhost"]), "has expired on 2002-02-03"),
        (pki.early(&["localhost"]), "is not valid before 2990"),
        (pki.issue(&["other.example"]), "is not for localhost"),
        (
            pki.self_signed(&["localhost"]),
            "an authority that is trusted",
        ),
        (
            Pki::named("Other").issue(&["localhost"]),
            "an authority that is trusted",
        ),
        (revoked, "is revoked"),
    ] {
        for option in ["-tls1_2", "-tls1_3"] {
            let (_child, _out, port) = s_server(&pair, &[option]).await;
            let config = pki.client().crl(list.clone());
            let Err(error) = dial(port, "lines", config).await else {
                panic!("connected although: {words}");
            };
            assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
    // too old, and nothing in common
    let pair = pki.issue(&["localhost"]);
    for (arguments, words) in [
        (
            &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"][..],
            "no common version",
        ),
        (
            &["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"],
            "nothing in common",
        ),
    ] {
        let (_child, _out, port) = s_server(&pair, arguments).await;
        let Err(error) = dial(port, "lines", pki.client()).await else {
            panic!("connected although: {words}");
        };
        assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn openssl_as_a_server_that_wants_to_know_who() {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost"]);
    let ca = pki.ca();
    let ca = ca.to_str().unwrap();
    let alice = pki.issue(&["alice"]);
    for option in ["-tls1_2", "-tls1_3"] {
        let arguments = [
            option,
            "-Verify",
            "1",
            "-verify_return_error",
            "-CAfile",
            ca,
        ];
        let (_child, _out, port) = s_server(&pair, &arguments).await;
        let who = pki.client().identity(&*alice.certificate, &*alice.key);
        let mut connection = dial(port, "lines", who).await.unwrap();
        assert_eq!(
            ask(&mut connection, "hello").await.unwrap().unwrap(),
            "olleh"
        );

        let (_child, _out, port) = s_server(&pair, &arguments).await;
        let result = match dial(port, "lines", pki.client()).await {
            Ok(mut connection) => ask(&mut connection, "hello").await,
            Err(error) => Err(error),
        };
        let error = result.unwrap_err();
        // with 1.2 OpenSSL only says that it failed
        let kinds = [ErrorKind::Untrusted, ErrorKind::Handshake];
        assert!(kinds.contains(&error.kind()), "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

/// A Python client, and what it said.
async fn python_client(echo: &Echo, pki: &Pki, options: &[&str]) -> String {
    let mut command: Command = python("tls_client.py");
    command.arg(echo.address().port().to_string());
    command.arg(pki.ca()).args(options);
    let (output, _) = run(command, b"").await;
    String::from_utf8(output).unwrap()
}

#[tokio::test]
async fn python_as_a_client() {
    let pki = Pki::new();
    let tls = pki.issue(&["localhost"]).server().alpn(["netsys"]);
    let mut echo = echo_on(&["tls://127.0.0.1:0"], |builder| builder.tls(tls)).await;
    for version in ["1.2", "1.3"] {
        let options = [&format!("version={version}"), "alpn=netsys", "resume=1"];
        let said = python_client(&echo, &pki, &options).await;
        let begins = format!("ok TLSv{version} ");
        let ends = "netsys localhost True\n";
        assert!(said.starts_with(&begins) && said.ends_with(ends), "{said}");
        for _ in 0..2 {
            assert_eq!(echo.next_end().await.label(), "peer");
        }
    }
    // one that vanishes has not said goodbye, and what it said before counts
    let said = python_client(&echo, &pki, &["end=cut"]).await;
    assert!(said.starts_with("ok TLSv1.3"), "{said}");
    let end = echo.next_end().await;
    assert_eq!(end.label(), "network");
    assert!(end.to_string().contains("without TLS' goodbye"), "{end}");
    let said = python_client(&echo, &pki, &["name=other.example"]).await;
    assert!(said.contains("Hostname mismatch"), "{said}");
    let said = python_client(&echo, &pki, &["version=1.1"]).await;
    assert!(said.starts_with("refused"), "{said}");
    let said = python_client(&echo, &Pki::named("Other"), &[]).await;
    assert!(said.contains("certificate verify failed"), "{said}");
}

#[tokio::test]
async fn python_as_the_server() {
    let pki = Pki::new();
    let (pair, alice) = (
        pki.issue(&["localhost"]),
        pki.issue(&["alice", "a.example"]),
    );
    let mut command = python("tls_server.py");
    command.args([&pair.certificate, &pair.key, &pki.ca()]);
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = within(out.next_line()).await.unwrap().unwrap();
    let tls = pki.client().alpn(["netsys"]);
    let tls = tls.identity(&*alice.certificate, &*alice.key);
    let framing = Framing::default().to_string();
    let mut connection = dial(port.parse().unwrap(), &framing, tls).await.unwrap();
    for size in [0, 1, 16384, 16385, 1 << 20] {
        let message = vec![size as u8; size];
        connection.send(message.clone()).await.unwrap();
        let back = within(connection.receive()).await.unwrap().unwrap();
        assert!(back == message, "{size}");
    }
    // Python takes an end without our goodbye for an error
    connection.close().await.unwrap();
    let said = within(out.next_line()).await.unwrap().unwrap();
    assert_eq!(said, "ok TLSv1.3 netsys alice,a.example 5");
    assert!(within(child.wait()).await.unwrap().success());
}
