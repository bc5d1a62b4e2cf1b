//! How much memory a hostile peer can make a server take, measured by an allocator that counts.
//! A test binary of its own, with one test, so that nothing else is counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may
#![allow(unsafe_code)] // an allocator is unsafe by nature; this one only counts and passes on

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use common::{echo, frame, only_session, read_to_end, round_trip, within};
use network_system::{CloseReason, Request, Server};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const MIB: usize = 1024 * 1024;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

fn grew(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(live, Relaxed);
    LARGEST.fetch_max(bytes, Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: the caller's promises are passed on
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are passed on
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_sub(layout.size(), Relaxed);
        grew(size);
        // SAFETY: the caller's promises are passed on
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How much more than now was allocated at most, and the largest single piece, from now on.
struct Meter {
    before: usize,
}

impl Meter {
    fn start() -> Self {
        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        LARGEST.store(0, Relaxed);
        Self { before }
    }

    fn peak(&self) -> usize {
        PEAK.load(Relaxed).saturating_sub(self.before)
    }

    fn now(&self) -> usize {
        LIVE.load(Relaxed).saturating_sub(self.before)
    }

    fn largest(&self) -> usize {
        LARGEST.load(Relaxed)
    }
}

/// Writes the same bytes again and again until `total` are out or the peer takes no more; how many
/// were taken.
async fn flood(stream: &mut TcpStream, bytes: &[u8], total: usize) -> usize {
    let mut written = 0;
    while written < total {
        // a stall is what a bounded server answers a flood with
        let write = tokio::time::timeout(Duration::from_millis(500), stream.write(bytes));
        match write.await {
            Ok(Ok(n)) => written += n,
            Ok(Err(_)) | Err(_) => break,
        }
        // whole pieces only, so that the stream stays valid
        let part = written % bytes.len();
        if part > 0 {
            let rest =
                tokio::time::timeout(Duration::from_millis(500), stream.write_all(&bytes[part..]));
            match rest.await {
                Ok(Ok(())) => written += bytes.len() - part,
                Ok(Err(_)) | Err(_) => break,
            }
        }
    }
    written
}

/// The limit is checked before memory is asked for.
async fn a_length_above_the_limit() {
    let mut echo = echo(|builder| builder).await;
    // once, so that what is kept for later is there already
    round_trip(&mut echo.dial().await, b"warm up").await;
    echo.next_end().await;
    for length in [16 * MIB as u32 + 1, u32::MAX] {
        let mut stream = echo.dial().await;
        let meter = Meter::start();
        stream.write_all(&length.to_be_bytes()).await.unwrap();
        let _ = read_to_end(&mut stream).await;
        drop(stream);
        let reason = echo.next_end().await;
        assert_eq!(reason.error().map(|error| error.code()), Some(-642));
        let (peak, largest) = (meter.peak(), meter.largest());
        assert!(peak < MIB && largest < MIB, "{peak} {largest}");
    }
}

/// What counts is what has arrived, not what was announced.
async fn many_large_announcements() {
    const PEERS: usize = 500;
    for arrived in [1, 3000] {
        let echo = echo(|builder| builder).await;
        let mut begin = (16 * MIB as u32).to_be_bytes().to_vec();
        begin.resize(4 + arrived, b'x');
        let meter = Meter::start();
        let mut peers = Vec::new();
        for _ in 0..PEERS {
            let mut stream = echo.dial().await;
            stream.write_all(&begin).await.unwrap();
            peers.push(stream);
        }
        // behind the others: when it is answered, they have been read
        round_trip(&mut echo.dial().await, b"the last").await;
        let received = || echo.server.statistics().connections_total;
        common::eventually("all are accepted", || received() == PEERS as u64 + 1).await;
        let (each, largest) = (meter.now() / PEERS, meter.largest());
        let most = 8 * 1024 + 4 * arrived;
        assert!(each < most, "{each} bytes per peer after {arrived} bytes");
        assert!(largest < MIB, "{largest}");
    }
}

/// Answers that the peer does not read hold up its next messages.
async fn a_peer_that_asks_and_never_reads() {
    let echo = echo(|builder| builder).await;
    let mut stream = echo.dial().await;
    let meter = Meter::start();
    let taken = flood(&mut stream, &frame(&[1; 1000]).repeat(100), 64 * MIB).await;
    assert!(taken < 32 * MIB, "{taken} bytes were taken");
    assert!(meter.peak() < 4 * MIB, "{}", meter.peak());
    let session = only_session(echo.server.sessions()).await;
    assert!(session.queued_bytes() <= MIB + 1004);
}

fn enveloped(header: &[u8], payload: &[u8]) -> Vec<u8> {
    frame(&[header, payload].concat())
}

const HELLO: &[u8] = b"\0\0\0\x05\0NSE1";

/// Pongs have a reserved place in the outbox, but not for any number of them.
async fn pings_of_a_peer_that_never_reads() {
    let echo = echo(|builder| builder.envelope(true)).await;
    let mut stream = echo.dial().await;
    stream.write_all(HELLO).await.unwrap();
    let ping = enveloped(&[0x50, 0, 0, 0, 0, 0, 0, 0, 1], b"");
    let meter = Meter::start();
    flood(&mut stream, &ping.repeat(1000), 32 * MIB).await;
    let session = only_session(echo.server.sessions()).await;
    assert!(session.queued_bytes() < 2 * MIB, "{session:?}");
    assert!(meter.peak() < 4 * MIB, "{}", meter.peak());
}

/// Nor for answers that nobody reads to requests that nobody serves.
async fn requests_of_a_peer_that_never_reads() {
    let echo = echo(|builder| builder.envelope(true)).await;
    let mut stream = echo.dial().await;
    stream.write_all(HELLO).await.unwrap();
    let request = enveloped(&[0x20, 0, 0, 0, 0, 0, 0, 0, 1], b"");
    let meter = Meter::start();
    flood(&mut stream, &request.repeat(1000), 16 * MIB).await;
    let session = only_session(echo.server.sessions()).await;
    assert!(session.queued_bytes() < 2 * MIB, "{session:?}");
    assert!(meter.peak() < 4 * MIB, "{}", meter.peak());
}

/// While a handler waits, some is read ahead so that replies arrive; not everything.
async fn messages_while_a_handler_waits() {
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .envelope(true)
        .on_request(|_, request: Request| async move {
            std::future::pending::<()>().await;
            drop(request);
        })
        .start()
        .await
        .unwrap();
    let address = common::socket_address(&server.listening()[0]);
    for payload in [&[][..], &[7; 1000]] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(HELLO).await.unwrap();
        let request = enveloped(&[0x20, 0, 0, 0, 0, 0, 0, 0, 1], payload);
        let meter = Meter::start();
        let taken = flood(&mut stream, &request.repeat(100), 32 * MIB).await;
        assert!(taken < 32 * MIB);
        assert!(meter.peak() < 2 * MIB, "{}", meter.peak());
    }
}

/// A message that is as large as announced costs about what it weighs, and its memory comes back.
async fn a_large_message_comes_and_goes() {
    let mut echo = echo(|builder| builder.outbox(64 * MIB, MIB)).await;
    round_trip(&mut echo.dial().await, b"warm up").await;
    echo.next_end().await;
    let payload = vec![3_u8; 16 * MIB];
    let whole = frame(&payload);
    let meter = Meter::start();
    let mut stream = echo.dial().await;
    within(stream.write_all(&whole)).await.unwrap();
    let mut received = 0;
    let mut buffer = vec![0; MIB];
    while received < whole.len() {
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer);
        received += within(read).await.unwrap();
    }
    assert!(meter.peak() < 3 * whole.len(), "{}", meter.peak());
    drop(buffer);
    let session = only_session(echo.server.sessions()).await;
    common::eventually("all is written", || session.queued_bytes() == 0).await;
    drop(stream);
    let reason = echo.next_end().await;
    assert!(matches!(reason, CloseReason::Peer), "{reason:?}");
    assert!(meter.now() < MIB, "{} bytes are still there", meter.now());
}

#[test]
fn hostile_peers_do_not_fill_the_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        a_length_above_the_limit().await;
        many_large_announcements().await;
        a_peer_that_asks_and_never_reads().await;
        pings_of_a_peer_that_never_reads().await;
        requests_of_a_peer_that_never_reads().await;
        messages_while_a_handler_waits().await;
        a_large_message_comes_and_goes().await;
    });
}
