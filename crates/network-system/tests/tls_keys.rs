//! Private keys as OpenSSL writes them: every kind and form that is in use, and what is said of those
//! that need a passphrase.
#![cfg(all(unix, feature = "tls"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::path::Path;

use common::programs::{program, run};
use common::secure::{dial, is, localhost, round_trip, secure};
use network_system::config::{TlsClientConfig, TlsServerConfig};
use network_system::{ErrorKind, Server};

async fn openssl(folder: &Path, arguments: &str) {
    let mut command = program("openssl", "openssl");
    command.current_dir(folder).args(arguments.split(' '));
    let (output, status) = run(command, b"").await;
    assert!(status.success(), "{arguments}: {output:?}");
}

/// A key by these arguments in `key`, a certificate of it in `cert`, and the key as it is written with
/// `form` in `formed`.
async fn make(folder: &Path, kind: &str, form: &str) {
    openssl(folder, &format!("genpkey -quiet {kind} -out key")).await;
    let self_signed = "-subj /CN=localhost -addext subjectAltName=DNS:localhost \
                       -addext basicConstraints=critical,CA:FALSE";
    openssl(
        folder,
        &format!("req -x509 -new -key key -out cert {self_signed}"),
    )
    .await;
    openssl(folder, &format!("{form} -in key -out formed")).await;
}

const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";
const EC: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";

#[tokio::test]
async fn of_every_kind_and_form() {
    for (kind, form, begin) in [
        (RSA, "pkey", "-----BEGIN PRIVATE KEY"),
        (RSA, "pkey -traditional", "-----BEGIN RSA PRIVATE KEY"),
        (EC, "pkey", "-----BEGIN PRIVATE KEY"),
        (EC, "pkey -traditional", "-----BEGIN EC PRIVATE KEY"),
        // with a section before the key
        (EC, "ec", "-----BEGIN EC P"),
        (
            "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
            "pkey",
            "-----BEGIN",
        ),
        ("-algorithm ED25519", "pkey", "-----BEGIN PRIVATE KEY"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), kind, form).await;
        let [certificate, key] = ["cert", "formed"].map(|name| folder.path().join(name));
        let text = std::fs::read_to_string(&key).unwrap();
        assert!(text.starts_with(begin), "{kind} {form}: {text:?}");
        let tls = TlsServerConfig::new(&*certificate, &*key);
        let echo = secure(tls, |builder| builder).await;
        let trusting = TlsClientConfig::default().ca(&*certificate);
        let mut connection = dial(&localhost(&echo), trusting).await.unwrap();
        round_trip(&mut connection, "hello").await.unwrap();
    }
}

#[tokio::test]
async fn with_a_passphrase() {
    for (kind, form, begin) in [
        (EC, "pkey -aes256 -passout pass:secret", "-----BEGIN ENC"),
        (
            RSA,
            "rsa -traditional -aes256 -passout pass:secret",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), kind, form).await;
        let [certificate, key] = ["cert", "formed"].map(|name| folder.path().join(name));
        let text = std::fs::read_to_string(&key).unwrap();
        assert!(text.starts_with(begin), "{kind} {form}: {text:?}");
        let server = Server::builder()
            .listen("tls://127.0.0.1:0")
            .tls(TlsServerConfig::new(&*certificate, &*key));
        let error = server.start().await.unwrap_err();
        is(&error, ErrorKind::InvalidArgument, "it is encrypted");
        is(&error, ErrorKind::InvalidArgument, key.to_str().unwrap());
    }
}
