//! Connections with a pipeline, and the keys for it.

use network_system::config::{ClientConfig, Compression, Noise, Pipeline, PublicKey};
use network_system::{Connection, Error, connect_with};

use super::within;

/// The private key of the server and of the client, and their public keys.
pub const SERVER: [u8; 32] = [0x11; 32];
pub const CLIENT: [u8; 32] = [0x22; 32];
pub const PSK: [u8; 32] = [0x33; 32];

/// The public key of [`SERVER`], as `cryptography` and `openssl` say, too.
pub fn server_key() -> PublicKey {
    let text = "7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13";
    text.parse().unwrap()
}

/// The public key of [`CLIENT`].
pub fn client_key() -> PublicKey {
    let text = "0faa684ed28867b97f4a6a2dee5df8ce974e76b7018e3f22a1c4cf2678570f20";
    text.parse().unwrap()
}

/// Every compression, and none.
pub fn compressions() -> [Compression; 6] {
    [
        Compression::None,
        Compression::Lz4,
        Compression::Deflate { level: 6 },
        Compression::Deflate { level: 1 },
        Compression::Zstd { level: 3 },
        Compression::Zstd { level: 19 },
    ]
}

/// Every encryption, for the server and the client, and none.
pub fn noises() -> [(Option<Noise>, Option<Noise>); 4] {
    [
        (None, None),
        (Some(Noise::psk(PSK)), Some(Noise::psk(PSK))),
        (
            Some(Noise::xx(SERVER).peer(client_key())),
            Some(Noise::xx(CLIENT).peer(server_key())),
        ),
        (
            Some(Noise::ik(SERVER).peer(client_key())),
            Some(Noise::ik(CLIENT).peer(server_key())),
        ),
    ]
}

/// Sizes on both sides of everything that changes with them.
pub fn sizes() -> Vec<usize> {
    let edges = [0, 64, 512, 8 * 1024, 65_518, 2 * 65_518, 300_000];
    let around = |n: usize| [n.saturating_sub(1), n, n + 1];
    edges.into_iter().flat_map(around).collect()
}

/// A message that can be compressed, but not to nothing.
pub fn text(size: usize) -> Vec<u8> {
    let words =
        (0..).flat_map(|n: u32| format!("{} is not {}, ", n, n.wrapping_mul(977)).into_bytes());
    words.take(size).collect()
}

/// A message that cannot be compressed.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..).flat_map(|_| next()).take(size).collect()
}

/// The settings of a client with a pipeline.
pub fn client(pipeline: Pipeline) -> ClientConfig {
    let mut config = ClientConfig::default();
    config.session.pipeline = Some(pipeline);
    config
}

/// A connection with a pipeline.
pub async fn dial(url: &str, pipeline: Pipeline) -> Result<Connection, Error> {
    within(connect_with(url, &client(pipeline))).await
}

/// Fails unless the message comes back.
pub async fn round_trip(connection: &mut Connection, message: &[u8]) {
    connection.send(message).await.unwrap();
    let back = within(connection.receive()).await.unwrap();
    let back = back.expect("an answer");
    assert!(back == message, "{} of {} bytes", back.len(), message.len());
}

/// A way between client and server on which `change` makes other frames of each frame that the client
/// sends; `None` cuts it off.
pub async fn through(
    target: std::net::SocketAddr,
    mut change: impl FnMut(usize, Vec<u8>) -> Option<Vec<Vec<u8>>> + Send + 'static,
) -> String {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    let way = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = way.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (client, _) = way.accept().await.unwrap();
        let server = TcpStream::connect(target).await.unwrap();
        let ((mut from, mut back), (mut answers, mut to)) =
            (client.into_split(), server.into_split());
        let answers = tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
        let mut n = 0;
        while let Ok(Some(frame)) = super::read_frame(&mut from).await {
            let Some(frames) = change(n, frame) else {
                break;
            };
            n += 1;
            for frame in frames {
                if to.write_all(&super::frame(&frame)).await.is_err() {
                    break;
                }
            }
        }
        let _ = to.shutdown().await;
        let _ = answers.await;
    });
    format!("tcp://127.0.0.1:{port}")
}
