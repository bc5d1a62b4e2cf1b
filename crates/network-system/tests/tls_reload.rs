//! Certificates that change under a server and a client that go on.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::pki::Pki;
use common::secure::{dial, is, localhost, round_trip, secure};
use common::{Echo, LIMIT, eventually, within};
use network_system::config::TlsClientConfig;
use network_system::{Backoff, Client, ErrorKind, Schemes, Server};

/// The names of the certificate that a server shows now.
async fn shown(echo: &Echo, pki: &Pki) -> Vec<String> {
    let mut tls = pki.client().server_name("localhost");
    tls.resumption = false;
    let connection = dial(echo.url(), tls).await.unwrap();
    let info = connection.info().tls.clone().unwrap();
    info.peer.as_ref().unwrap().names.clone()
}

#[tokio::test]
async fn a_server_gets_new_certificates_and_goes_on() {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost", "first"]);
    let mut tls = pair.server();
    tls.reload_interval = None;
    let echo = secure(tls, |builder| builder).await;
    let mut old = dial(&localhost(&echo), pki.client()).await.unwrap();
    assert_eq!(shown(&echo, &pki).await, ["localhost", "first"]);
    pair.replace_with(&pki.issue(&["localhost", "second"]));
    // nothing happens by itself where that is off
    assert_eq!(shown(&echo, &pki).await, ["localhost", "first"]);
    echo.server.reload().unwrap();
    assert_eq!(shown(&echo, &pki).await, ["localhost", "second"]);

    // what cannot be used is named, and changes nothing
    let key = std::fs::read(&pair.key).unwrap();
    let other = pki.issue(&["localhost", "third"]);
    std::fs::copy(&other.certificate, &pair.certificate).unwrap();
    let error = echo.server.reload().unwrap_err();
    is(
        &error,
        ErrorKind::InvalidArgument,
        "it is not the key of the certificate",
    );
    assert!(error.to_string().contains(pair.paths().1), "{error}");
    std::fs::write(&pair.key, "no key").unwrap();
    is(
        &echo.server.reload().unwrap_err(),
        ErrorKind::InvalidArgument,
        "there is none in it",
    );
    std::fs::remove_file(&pair.key).unwrap();
    is(
        &echo.server.reload().unwrap_err(),
        ErrorKind::InvalidArgument,
        pair.paths().1,
    );
    assert_eq!(shown(&echo, &pki).await, ["localhost", "second"]);

    std::fs::write(&pair.key, key).unwrap();
    pair.replace_with(&other);
    echo.server.reload().unwrap();
    assert_eq!(shown(&echo, &pki).await, ["localhost", "third"]);
    // who was there has noticed nothing
    round_trip(&mut old, "still here").await.unwrap();
}

#[tokio::test]
async fn files_that_change_are_noticed() {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost", "first"]);
    let mut tls = pair.server();
    tls.reload_interval = Some(Duration::from_millis(1));
    let echo = secure(tls, |builder| builder).await;
    assert_eq!(shown(&echo, &pki).await, ["localhost", "first"]);
    std::fs::write(&pair.certificate, "half of a file").unwrap();
    assert_eq!(shown(&echo, &pki).await, ["localhost", "first"]);
    pair.replace_with(&pki.issue(&["localhost", "second"]));
    let until = tokio::time::Instant::now() + common::LIMIT;
    while shown(&echo, &pki).await != ["localhost", "second"] {
        assert!(tokio::time::Instant::now() < until, "not noticed");
    }
}

/// A client shows its new certificate when it connects again.
#[tokio::test]
async fn a_client_gets_new_certificates_and_goes_on() {
    let pki = Pki::new();
    let tls = pki.issue(&["localhost"]).server().client_ca(pki.ca());
    let echo = secure(tls, |builder| builder).await;
    let pair = pki.issue(&["first"]);
    let mut config = pki.client().identity(&*pair.certificate, &*pair.key);
    config.reload_interval = None;
    let client = Client::builder(localhost(&echo))
        .tls(config)
        .reconnect(Backoff::every(Duration::from_millis(1)))
        .connect()
        .await
        .unwrap();
    let peer = async || {
        let session = common::only_session(echo.server.sessions()).await;
        let tls = session.info().tls.clone().unwrap();
        session.abort();
        eventually("it has gone", || session.is_closed()).await;
        eventually("it is back", || {
            echo.server
                .sessions()
                .all()
                .iter()
                .any(|s| s.id() != session.id())
        })
        .await;
        tls.peer.clone().unwrap().names
    };
    assert_eq!(peer().await, ["first"]);
    let broken = std::fs::read(&pair.key).unwrap();
    std::fs::write(&pair.key, "nonsense").unwrap();
    is(
        &client.reload().unwrap_err(),
        ErrorKind::InvalidArgument,
        pair.paths().1,
    );
    assert_eq!(peer().await, ["first"]);
    std::fs::write(&pair.key, broken).unwrap();
    pair.replace_with(&pki.issue(&["second"]));
    client.reload().unwrap();
    // the one that is there was made before
    peer().await;
    assert_eq!(peer().await, ["second"]);
}

/// New certificates every few milliseconds, and no request fails.
#[tokio::test]
async fn new_certificates_under_load() {
    let pki = Pki::new();
    let pair = pki.issue(&["localhost"]);
    let server = Server::builder()
        .listen("tls://127.0.0.1:0")
        .envelope(true)
        .workers(1)
        .tls(pair.server())
        .on_request(|_, request| async move {
            let message = request.message().clone();
            request.reply(message).await
        })
        .start()
        .await
        .unwrap();
    let url = format!("tls://localhost:{}", server.listening()[0].port().unwrap());
    let ask = |n: u32| {
        let (url, tls) = (url.clone(), pki.client());
        tokio::spawn(async move {
            for round in 0..20_u32 {
                let client = Client::builder(&url).envelope(true).tls(tls.clone());
                let client = within(client.connect()).await.unwrap();
                for _ in 0..20 {
                    let text = format!("{n} {round}");
                    let reply = within(client.request(text.clone())).await.unwrap();
                    assert_eq!(reply, text);
                }
                within(client.close(Duration::from_secs(10))).await;
            }
        })
    };
    let asking: Vec<_> = (0..4).map(ask).collect();
    let mut reloads = 0;
    while asking.iter().any(|task| !task.is_finished()) {
        pair.replace_with(&pki.issue(&["localhost"]));
        server.reload().unwrap();
        reloads += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for task in asking {
        task.await.unwrap();
    }
    assert!(reloads > 1, "{reloads}");
    let statistics = server.statistics();
    assert_eq!(statistics.connections_refused["handshake"], 0);
    assert_eq!(statistics.messages_in, 4 * 20 * 20);
}

/// What was connected with once, by clients that are gone, need not be there any more.
#[tokio::test]
async fn settings_of_past_clients_do_not_matter() {
    let pki = Pki::new();
    let echo = secure(pki.issue(&["localhost"]).server(), |builder| builder).await;
    let schemes = Schemes::default();
    let copy = |name: &str| {
        let file = pki.folder().join(name);
        std::fs::copy(pki.ca(), &file).unwrap();
        file
    };
    let connect = async |ca: &std::path::Path| {
        let tls = TlsClientConfig::default().ca(ca);
        let client = Client::builder(localhost(&echo)).transports(schemes.clone());
        within(client.tls(tls).connect()).await.unwrap()
    };
    let (past, present) = (copy("past.pem"), copy("present.pem"));
    let (first, second) = (connect(&past).await, connect(&present).await);
    // another one with the same settings as the one that leaves
    let also = connect(&past).await;
    within(first.close(LIMIT)).await;
    std::fs::remove_file(&past).unwrap();
    let error = second.reload().unwrap_err();
    is(&error, ErrorKind::InvalidArgument, "past.pem");
    within(also.close(LIMIT)).await;
    eventually("nobody needs it", || second.reload().is_ok()).await;
    // what is in use matters
    std::fs::write(&present, "nothing").unwrap();
    let error = second.reload().unwrap_err();
    is(&error, ErrorKind::InvalidArgument, "present.pem");
}
