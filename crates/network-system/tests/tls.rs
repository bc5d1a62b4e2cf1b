//! TLS between our own ends: who is trusted and who is not, what both sides know of each other, and
//! messages over every stream. (With programs of others: `tls_interop.rs`.)
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::{Duration, SystemTime};

use common::pki::{Pair, Pki};
use common::secure::{dial, is, localhost, not_dialled, refused, round_trip, secure};
use common::{Healthy, echo_on, eventually, within};
use network_system::config::{
    ClientAuth, ClientConfig, TlsClientConfig, TlsServerConfig, TlsVersion,
};
use network_system::{ErrorKind, Server};
use rcgen::{DistinguishedName, DnType};

#[tokio::test]
async fn messages_over_every_stream() {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost", "127.0.0.1"]);
    let folder = tempfile::tempdir().unwrap();
    let sizes = [0, 1, 64, 8191, 8192, 16384, 16385, 100_000, 3 << 20];
    for workers in [0, 2] {
        let addresses = [
            "tls://127.0.0.1:0".to_owned(),
            "tcp://127.0.0.1:0?tls=true".to_owned(),
            format!("memory://tls-{workers}?tls=true"),
            #[cfg(unix)]
            format!("unix://{}/{workers}?tls=true", folder.path().display()),
        ];
        let addresses = addresses.each_ref().map(String::as_str);
        let echo = echo_on(&addresses, |builder| {
            builder.tls(pair.server()).workers(workers)
        })
        .await;
        for address in echo.server.listening() {
            let config = pki.client().server_name("localhost");
            let mut connection = dial(address.as_str(), config).await.unwrap();
            let info = connection.info().clone();
            let tls = info.tls.as_ref().unwrap();
            assert_eq!((tls.version, tls.resumed), (TlsVersion::Tls13, false));
            let scheme = address.scheme();
            assert_eq!(info.scheme, if scheme == "tcp" { "tls" } else { scheme });
            for size in sizes {
                let message = vec![size as u8; size];
                connection.send(message.clone()).await.unwrap();
                let back = within(connection.receive()).await.unwrap().unwrap();
                assert!(back == message, "{size} over {address}");
            }
            connection.close().await.unwrap();
        }
        // the ends are in good order
        let ends = addresses.len() as u64;
        eventually("all ends", || echo.ended("peer") == ends).await;
    }
}

#[tokio::test]
async fn what_both_sides_know_of_each_other() {
    let pki = Pki::new();
    let tls = pki
        .issue(&["localhost"])
        .server()
        .client_ca(pki.ca())
        .alpn(["second", "first"]);
    let echo = secure(tls, |builder| builder).await;
    let me = pki.issue(&["alice", "10.1.2.3", "spare.example"]);
    let client = pki
        .client()
        .identity(&*me.certificate, &*me.key)
        .alpn(["first", "second"]);
    let mut connection = dial(&localhost(&echo), client).await.unwrap();
    round_trip(&mut connection, "hello").await.unwrap();

    let seen = connection.info().tls.clone().unwrap();
    let server = seen.peer.as_ref().unwrap();
    assert!(server.subject.contains("CN=localhost"), "{server:?}");
    assert!(server.issuer.contains("CN=Test CA"), "{server:?}");
    assert_eq!(server.names, ["localhost"]);
    // the server's preference counts
    assert_eq!(seen.alpn.as_deref(), Some("second"));

    let session = common::only_session(echo.server.sessions()).await;
    let seen = session.info().tls.clone().unwrap();
    assert_eq!(seen.server_name.as_deref(), Some("localhost"));
    assert_eq!(seen.cipher, connection.info().tls.as_ref().unwrap().cipher);
    let client = seen.peer.as_ref().unwrap();
    assert!(client.subject.contains("CN=alice"), "{client:?}");
    assert_eq!(client.names, ["alice", "10.1.2.3", "spare.example"]);
    assert_ne!(client.fingerprint, server.fingerprint);
}

/// Nobody gets another name by what is special in the text of one.
#[tokio::test]
async fn names_that_look_like_others() {
    let pki = Pki::new();
    let tls = pki.issue(&["localhost"]).server().client_ca(pki.ca());
    for (name, subject) in [
        ("alice, O=admins", r"CN=alice\, O\=admins, OU=a \+ b"),
        ("alice\0\r\n", r"CN=alice\00\0D\0A, OU=a \+ b"),
        (" #ålice ", r"CN=\ #ålice\ , OU=a \+ b"),
    ] {
        let echo = secure(tls.clone(), |builder| builder).await;
        let me = pki.issue_with(&[], |params| {
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            let unit = DnType::OrganizationalUnitName;
            params.distinguished_name.push(unit, "a + b");
        });
        let client = pki.client().identity(&*me.certificate, &*me.key);
        let mut connection = dial(&localhost(&echo), client).await.unwrap();
        round_trip(&mut connection, "hello").await.unwrap();
        let session = common::only_session(echo.server.sessions()).await;
        let peer = session.info().tls.as_ref().unwrap().peer.clone().unwrap();
        assert_eq!(peer.subject, subject);
    }
}

#[tokio::test]
async fn servers_that_are_not_trusted() {
    let pki = Pki::new();
    let right = pki.issue(&["localhost"]);
    let revoked = pki.issue(&["localhost"]);
    let list = pki.revoke(&[&revoked]);
    let untrusted = ErrorKind::Untrusted;
    for (pair, words) in [
        (
            pki.expired(&["localhost"]),
            "has expired on 2002-02-03T00:00:00Z",
        ),
        (pki.early(&["localhost"]), "is not valid before 2990-01-01"),
        (
            pki.issue(&["other.example", "b.example"]),
            "is not for localhost, but for",
        ),
        (
            pki.self_signed(&["localhost"]),
            "was not issued by an authority that is trusted",
        ),
        (
            Pki::named("Other").issue(&["localhost"]),
            "authority that is trusted here",
        ),
        (revoked.clone(), "is revoked"),
    ] {
        let mut echo = secure(pair.server(), |builder| builder).await;
        let error = refused(&echo, pki.client().crl(list.clone())).await;
        is(&error, untrusted, words);
        assert_eq!((error.code(), error.can_retry()), (-605, false));
        // and the server is told
        let told = echo.next_error().await;
        assert!(
            matches!(told.kind(), ErrorKind::Untrusted | ErrorKind::Handshake),
            "{told:?}"
        );
        let statistics = echo.server.statistics();
        assert_eq!(statistics.connections_refused["handshake"], 1);
        assert_eq!(statistics.connections_total, 0);
    }
    // as `openssl req -x509` makes them
    let authority = pki.self_signed_authority(&["localhost"]);
    let echo = secure(authority.server(), |builder| builder).await;
    let trusting = TlsClientConfig::default().ca(&*authority.certificate);
    let error = refused(&echo, trusting).await;
    is(&error, untrusted, "is that of an authority");
    // with the system's authorities nobody has heard of this one
    let echo = secure(right.server(), |builder| builder).await;
    let error = refused(&echo, TlsClientConfig::default()).await;
    is(&error, untrusted, "authority");
    // by the address, which is not in it
    let error = not_dialled(echo.url(), pki.client()).await;
    is(&error, untrusted, "is not for 127.0.0.1");
    let by_name = pki.client().server_name("localhost");
    assert!(dial(echo.url(), by_name).await.is_ok());
    // a self-signed one is its own authority
    let own = pki.self_signed(&["localhost"]);
    let echo = secure(own.server(), |builder| builder).await;
    let trusting = TlsClientConfig::default().ca(&*own.certificate);
    assert!(dial(&localhost(&echo), trusting).await.is_ok());
}

#[tokio::test]
async fn clients_that_are_not_trusted() {
    let pki = Pki::new();
    let revoked = pki.issue(&["mallory"]);
    let tls = pki
        .issue(&["localhost"])
        .server()
        .client_ca(pki.ca())
        .crl(pki.revoke(&[&revoked]));
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let mut echo = secure(tls.clone().min_version(version), |builder| builder).await;
        let client = || pki.client();
        for (pair, words, why) in [
            (None, "has shown none", "asks for one"),
            (
                Some(Pki::named("Other").issue(&["eve"])),
                "authority that is trusted",
                "no authority",
            ),
            (
                Some(pki.expired(&["old"])),
                "has expired on 2002",
                "has expired",
            ),
            (Some(revoked.clone()), "is revoked", "is revoked"),
        ] {
            let config = match &pair {
                None => client(),
                Some(pair) => client().identity(&*pair.certificate, &*pair.key),
            };
            let told = refused(&echo, config).await;
            is(&told, ErrorKind::Untrusted, why);
            is(&echo.next_error().await, ErrorKind::Untrusted, words);
        }
        assert_eq!(echo.server.statistics().connections_refused["handshake"], 4);
        let pair = pki.issue(&["bob"]);
        let config = client().identity(&*pair.certificate, &*pair.key);
        let mut connection = dial(&localhost(&echo), config).await.unwrap();
        round_trip(&mut connection, "let me in").await.unwrap();
    }
    // where they may have none, one that is wrong is still wrong
    let optional = tls.client_auth(ClientAuth::Optional);
    let echo = secure(optional, |builder| builder).await;
    let mut connection = dial(&localhost(&echo), pki.client()).await.unwrap();
    round_trip(&mut connection, "nobody").await.unwrap();
    let session = common::only_session(echo.server.sessions()).await;
    assert_eq!(session.info().tls.as_ref().unwrap().peer, None);
    let config = pki.client().identity(&*revoked.certificate, &*revoked.key);
    is(
        &refused(&echo, config).await,
        ErrorKind::Untrusted,
        "is revoked",
    );
}

#[tokio::test]
async fn a_name_picks_the_certificate() {
    let pki = Pki::new();
    let tls = pki.issue(&["localhost"]).server();
    let (wild, other) = (pki.issue(&["*.one.example"]), pki.issue(&["two.example"]));
    let tls = tls
        .certificate(&*wild.certificate, &*wild.key)
        .certificate(&*other.certificate, &*other.key);
    let echo = secure(tls, |builder| builder).await;
    for (asked, got) in [
        ("localhost", "localhost"),
        ("a.one.example", "*.one.example"),
        ("TWO.example", "two.example"),
    ] {
        let config = pki.client().server_name(asked);
        let connection = dial(echo.url(), config).await.unwrap();
        let tls = connection.info().tls.clone().unwrap();
        assert_eq!(tls.peer.as_ref().unwrap().names, [got], "{asked}");
    }
    for asked in ["one.example", "b.a.one.example", "three.example"] {
        let config = pki.client().server_name(asked);
        let error = not_dialled(echo.url(), config).await;
        is(&error, ErrorKind::Untrusted, "is not for");
    }
}

#[tokio::test]
async fn trust_in_anybody_has_to_be_asked_for_by_name() {
    let pki = Pki::new();
    let echo = secure(pki.expired(&["nobody"]).server(), |builder| builder).await;
    let reckless = TlsClientConfig::default().danger_trust_any_certificate_for_tests_only();
    let mut connection = dial(echo.url(), reckless).await.unwrap();
    round_trip(&mut connection, "hello").await.unwrap();
}

#[tokio::test]
async fn nothing_in_common() {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost"]);
    let mut echo = secure(pair.server().alpn(["mine"]), |builder| builder).await;
    let error = refused(&echo, pki.client().alpn(["yours"])).await;
    is(
        &error,
        ErrorKind::Handshake,
        "no common application protocol",
    );
    is(
        &echo.next_error().await,
        ErrorKind::Handshake,
        "application protocols",
    );
    // who offers none is let in
    let connection = dial(&localhost(&echo), pki.client()).await.unwrap();
    assert_eq!(connection.info().tls.as_ref().unwrap().alpn, None);
}

/// A session is resumed, with either version, and not where that is off, or where clients have
/// certificates, which are looked at each time.
#[tokio::test]
async fn sessions_are_resumed() {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost"]);
    let who = pki.issue(&["alice"]);
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        for (on, auth) in [
            (true, ClientAuth::Off),
            (false, ClientAuth::Off),
            (true, ClientAuth::Optional),
            (true, ClientAuth::Required),
        ] {
            let mut tls = pair.server();
            if auth != ClientAuth::Off {
                tls = tls.client_ca(pki.ca()).client_auth(auth);
            }
            tls.resumption = on;
            let echo = secure(tls, |builder| builder).await;
            let client = pki.client().identity(&*who.certificate, &*who.key);
            let client = match version {
                TlsVersion::Tls13 => client.min_version(version),
                _ => client,
            };
            let resumes = on && auth == ClientAuth::Off;
            for round in 0..3 {
                let mut connection = dial(&localhost(&echo), client.clone()).await.unwrap();
                round_trip(&mut connection, "hello").await.unwrap();
                let session = common::only_session(echo.server.sessions()).await;
                let seen = session.info().tls.clone().unwrap();
                assert_eq!(seen.resumed, resumes && round > 0, "{version} {auth:?}");
                assert_eq!(
                    seen.resumed,
                    connection.info().tls.as_ref().unwrap().resumed
                );
                let names = seen.peer.as_ref().map(|peer| peer.names.clone());
                let shown = (auth != ClientAuth::Off).then(|| vec!["alice".to_owned()]);
                assert_eq!(names, shown);
                connection.close().await.unwrap();
                eventually("it has gone", || echo.server.sessions().is_empty()).await;
            }
        }
    }
}

/// Who has connected before and comes back is told when its certificate has expired since.
#[tokio::test]
async fn a_certificate_that_has_expired_since_is_noticed() {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost"]);
    let since_1970 = || {
        let now = SystemTime::now();
        now.duration_since(SystemTime::UNIX_EPOCH).unwrap()
    };
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let mut echo = secure(pair.server().client_ca(pki.ca()), |builder| builder).await;
        let end = Duration::from_secs(since_1970().as_secs() + 3);
        let alice = pki.issue_with(&["alice"], |params| {
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + end;
        });
        let bob = pki.issue(&["bob"]);
        let client = |pair: &Pair| {
            let client = pki.client().identity(&*pair.certificate, &*pair.key);
            match version {
                TlsVersion::Tls13 => client.min_version(version),
                _ => client,
            }
        };
        let config = ClientConfig {
            tls: client(&bob),
            ..ClientConfig::default()
        };
        let pause = Duration::from_millis(2);
        let healthy = Healthy::with(&localhost(&echo), config, pause).await;
        // the same settings each time, which is what sessions are kept for
        let alice = client(&alice);
        let mut times = 0;
        let told = within(async {
            loop {
                let again = async {
                    let mut connection = dial(&localhost(&echo), alice.clone()).await?;
                    round_trip(&mut connection, "hello").await?;
                    connection.close().await
                };
                match again.await {
                    Ok(()) => times += 1,
                    Err(error) => break error,
                }
            }
        })
        .await;
        assert!(since_1970() >= end && times > 1, "too early: {told}");
        is(&told, ErrorKind::Untrusted, "has expired");
        is(
            &echo.next_error().await,
            ErrorKind::Untrusted,
            "has expired",
        );
        healthy.finish().await;
    }
}

/// Settings that cannot work are named before anything is taken.
#[tokio::test]
async fn settings_that_cannot_work() {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost"]);
    let start = async |tls: TlsServerConfig| {
        let server = Server::builder().listen("tls://127.0.0.1:0").tls(tls);
        server.start().await.unwrap_err()
    };
    let invalid = ErrorKind::InvalidArgument;
    is(
        &start(TlsServerConfig::default()).await,
        invalid,
        "needs a certificate",
    );
    let missing = TlsServerConfig::new("/no/such.pem", &*pair.key);
    is(&start(missing).await, invalid, "/no/such.pem");
    let swapped = TlsServerConfig::new(&*pair.key, &*pair.certificate);
    is(&start(swapped).await, invalid, "there is none in it");
    let no_ca = pair.server().client_auth(ClientAuth::Required);
    is(&start(no_ca).await, invalid, "tls.client_ca");
    let unix = "unix:///tmp/no-such.sock?tls=true";
    is(
        &not_dialled(unix, pki.client()).await,
        invalid,
        "server_name",
    );
    let nameless = pki.client().server_name("not a name");
    is(
        &not_dialled("tls://h:1", nameless).await,
        invalid,
        "no name",
    );
    let error = not_dialled("tls://127.0.0.1:1", pki.client()).await;
    is(&error, ErrorKind::ConnectionRefused, "tls://127.0.0.1:1");
    let error = Server::builder()
        .listen("tcp://127.0.0.1:0?tls=maybe")
        .start()
        .await
        .unwrap_err();
    is(&error, invalid, "maybe");
    let url = "tls://localhost:1?tls=false";
    let error = not_dialled(url, pki.client()).await;
    is(&error, invalid, "always has TLS");
}
