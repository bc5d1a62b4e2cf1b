//! Keys of Noise that change under a server that goes on.
#![cfg(all(feature = "compression", feature = "noise"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::path::Path;

use common::echo;
use common::piped::{client_key, dial, round_trip, server_key};
use network_system::ErrorKind;
use network_system::config::{Noise, Pipeline};

fn digits(key: [u8; 32]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One that connects with such settings, or why it cannot.
async fn tries(url: &str, noise: Noise) -> Result<(), ErrorKind> {
    match dial(url, Pipeline::new().noise(noise)).await {
        Ok(mut connection) => {
            round_trip(&mut connection, b"hello").await;
            Ok(())
        }
        Err(error) => Err(error.kind()),
    }
}

#[tokio::test]
async fn a_server_gets_a_new_shared_key_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.key");
    let (first, second) = ([0x44; 32], [0x55; 32]);
    std::fs::write(&file, digits(first)).unwrap();
    for workers in [0, 2] {
        std::fs::write(&file, digits(first)).unwrap();
        let pipeline = || Pipeline::new().noise(Noise::psk(&*file));
        let echo = echo(|builder| builder.pipeline(pipeline()).workers(workers)).await;
        let mut old = dial(echo.url(), pipeline()).await.unwrap();
        round_trip(&mut old, b"hello").await;

        std::fs::write(&file, digits(second)).unwrap();
        // the server has not looked yet
        assert_eq!(tries(echo.url(), Noise::psk(first)).await, Ok(()));
        echo.server.reload().unwrap();
        assert_eq!(tries(echo.url(), Noise::psk(second)).await, Ok(()));
        let refused = tries(echo.url(), Noise::psk(first)).await;
        assert_eq!(refused, Err(ErrorKind::Untrusted));
        round_trip(&mut old, b"still here").await;

        // what cannot be used is named, and changes nothing
        std::fs::write(&file, "no key").unwrap();
        let error = echo.server.reload().unwrap_err().to_string();
        assert!(
            error.contains("shared.key") && error.contains("64 hexadecimal"),
            "{error}"
        );
        std::fs::remove_file(&file).unwrap();
        let error = echo.server.reload().unwrap_err().to_string();
        assert!(error.contains("shared.key"), "{error}");
        assert_eq!(tries(echo.url(), Noise::psk(second)).await, Ok(()));
        round_trip(&mut old, b"and on").await;
    }
}

/// The server's own key changes: clients accept the one that they know.
#[tokio::test]
async fn a_server_gets_a_new_key_of_its_own_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file: &Path = &folder.path().join("server.key");
    std::fs::write(file, digits([0x77; 32])).unwrap();
    let noise = Noise::xx(file).peer(client_key());
    let echo = echo(|builder| builder.pipeline(Pipeline::new().noise(noise))).await;
    let client = || Noise::xx(common::piped::CLIENT).peer(server_key());
    assert_eq!(tries(echo.url(), client()).await, Err(ErrorKind::Untrusted));
    std::fs::write(file, digits(common::piped::SERVER)).unwrap();
    echo.server.reload().unwrap();
    assert_eq!(tries(echo.url(), client()).await, Ok(()));
}
