//! Streams of framed messages over loopback: this library with TLS and without, at handler level on
//! workers, and a minimal loop on tokio-rustls, in turn. The receiver counts the messages before it
//! says that they are there.
//!
//! `taskset -c 1 cargo run --release --manifest-path bench/tls/Cargo.toml`

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use network_system::config::{TlsClientConfig, TlsServerConfig};
use network_system::{Client, Handler, MessageRef, Server, Session, Workers};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Sizes of messages, and how many of each make a round of a second or two.
const WORK: [(usize, u64); 3] = [(1024, 400_000), (8192, 100_000), (65536, 15_000)];
const ROUNDS: usize = 5;

/// A certificate that is its own authority, and its key.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn new() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        Ok(Self {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        })
    }
}

/// Counts messages, and says so when all are there.
struct Count {
    seen: AtomicU64,
    all: u64,
}

impl Handler for Count {
    async fn on_message(
        &self,
        session: &Session,
        _: &MessageRef<'_>,
    ) -> network_system::Result<()> {
        match self.seen.fetch_add(1, Relaxed) + 1 {
            seen if seen == self.all => session.send("all").await,
            _ => Ok(()),
        }
    }
}

/// Seconds that this library takes.
async fn ours(scheme: &str, pair: &Pair, size: usize, count: u64) -> Result<f64> {
    let handler = Count {
        seen: AtomicU64::new(0),
        all: count,
    };
    let server = Server::builder()
        .listen(format!("{scheme}://127.0.0.1:0"))
        .workers(1)
        .tls(TlsServerConfig::new(&*pair.certificate, &*pair.key))
        .handler(handler)
        .start()
        .await?;
    let port = server.listening()[0].port().ok_or("no port")?;
    let (done, mut all) = tokio::sync::mpsc::unbounded_channel();
    let client = Client::builder(format!("{scheme}://localhost:{port}"))
        .workers(&Workers::new(1)?)
        .tls(TlsClientConfig::default().ca(&*pair.certificate))
        .on_message(move |_, message| {
            let _ = done.send(message);
            async {}
        })
        .connect()
        .await?;
    let message = Bytes::from(vec![7; size]);
    let began = Instant::now();
    for _ in 0..count {
        client.send(message.clone()).await?;
    }
    all.recv().await.ok_or("the connection was lost")?;
    Ok(began.elapsed().as_secs_f64())
}

/// Reads and counts frames with as little as it takes.
async fn receive(socket: TcpStream, config: rustls::ServerConfig, count: u64) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut stream = TlsAcceptor::from(Arc::new(config)).accept(socket).await?;
    let mut buffer = vec![0; 256 * 1024];
    let (mut end, mut seen) = (0, 0);
    while seen < count {
        let n = stream.read(&mut buffer[end..]).await?;
        if n == 0 {
            return Err("the end came too early".into());
        }
        end += n;
        let mut at = 0;
        while let Some(head) = buffer[at..end].first_chunk::<4>() {
            let next = at + 4 + u32::from_be_bytes(*head) as usize;
            if next > end {
                break;
            }
            at = next;
            seen += 1;
        }
        buffer.copy_within(at..end, 0);
        end -= at;
    }
    stream.write_all(b"\0\0\0\x03all").await?;
    stream.flush().await?;
    // until the client has gone, however it goes
    let _ = stream.read(&mut buffer).await;
    Ok(())
}

/// Seconds that a minimal loop on tokio-rustls takes.
async fn minimal(pair: &Pair, size: usize, count: u64) -> Result<f64> {
    let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?;
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let client = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();

    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let receiver = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let (socket, _) = TcpListener::from_std(listener)?.accept().await?;
            receive(socket, server, count).await
        })
    });
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::new(client));
    let mut stream = connector.connect("localhost".try_into()?, socket).await?;
    let mut frame = u32::try_from(size)?.to_be_bytes().to_vec();
    frame.resize(4 + size, 7);
    // as many as rustls takes at once
    let at_once = (64 * 1024 / frame.len()).max(1);
    let batch = frame.repeat(at_once);
    let began = Instant::now();
    let mut left = count;
    while left > 0 {
        let n = left.min(at_once as u64);
        stream.write_all(&batch[..n as usize * frame.len()]).await?;
        left -= n;
    }
    stream.flush().await?;
    let mut all = [0; 7];
    stream.read_exact(&mut all).await?;
    let seconds = began.elapsed().as_secs_f64();
    drop(stream);
    receiver.join().map_err(|_| "the receiver failed")??;
    Ok(seconds)
}

/// The median, the smallest and the largest of what was measured, as text.
fn spread(mut rates: Vec<f64>) -> (f64, String) {
    rates.sort_by(f64::total_cmp);
    let median = rates[rates.len() / 2];
    let text = format!(
        "{median:.0} ({:.0} to {:.0})",
        rates[0],
        rates[rates.len() - 1]
    );
    (median, text)
}

async fn measure() -> Result<()> {
    let pair = Pair::new()?;
    println!("| bytes | tls:// MB/s | tokio-rustls MB/s | share | tcp:// MB/s |");
    println!("|---|---:|---:|---:|---:|");
    for (size, count) in WORK {
        let (mut tls, mut loops, mut tcp) = (Vec::new(), Vec::new(), Vec::new());
        let rate = |seconds: f64| size as f64 * count as f64 / seconds / 1e6;
        for _ in 0..ROUNDS {
            tls.push(rate(ours("tls", &pair, size, count).await?));
            loops.push(rate(minimal(&pair, size, count).await?));
            tcp.push(rate(ours("tcp", &pair, size, count).await?));
        }
        let ((tls, a), (loops, b), (_, c)) = (spread(tls), spread(loops), spread(tcp));
        println!("| {size} | {a} | {b} | {:.2} | {c} |", tls / loops);
    }
    Ok(())
}

fn main() -> Result<()> {
    // what tokio-rustls is set to for the whole process
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure())
}
