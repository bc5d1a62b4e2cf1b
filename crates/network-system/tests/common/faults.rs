//! A TCP proxy that breaks what goes through it, as networks do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the proxy does with the bytes of its connections, those that are there included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Passes them on.
    None,
    /// Passes each piece on after a delay.
    Delay(Duration),
    /// Swallows them, and says nothing: as behind a cable that was pulled.
    HalfOpen,
    /// One byte in each of these intervals.
    Drip(Duration),
    /// Ends the connections in good order, also new ones.
    Cut,
    /// Resets the connections, also new ones.
    Reset,
}

/// The proxy; it ends with its handle.
pub struct Proxy {
    pub address: SocketAddr,
    fault: watch::Sender<Fault>,
    target: Arc<Mutex<SocketAddr>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault = watch::Sender::new(Fault::None);
        let target = Arc::new(Mutex::new(target));
        let mut tasks = JoinSet::new();
        let (faults, to) = (fault.clone(), target.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let to = *to.lock().unwrap();
                connections.spawn(connection(stream, to, faults.subscribe()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            fault,
            target,
            _tasks: tasks,
        }
    }

    pub fn url(&self) -> String {
        format!("tcp://{}?envelope=true", self.address)
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Where new connections go.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
    }
}

async fn connection(mut near: TcpStream, to: SocketAddr, mut faults: watch::Receiver<Fault>) {
    let Ok(mut far) = TcpStream::connect(to).await else {
        return;
    };
    let (pieces, ends) = (faults.clone(), |fault: &Fault| {
        matches!(fault, Fault::Cut | Fault::Reset)
    });
    let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
    tokio::select! {
        biased;
        _ = faults.wait_for(ends) => {}
        _ = async { tokio::join!(pass(near_in, far_out, &pieces), pass(far_in, near_out, &pieces)) } => {}
    }
    if *pieces.borrow() == Fault::Reset {
        for stream in [&near, &far] {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

async fn pass(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, faults: &watch::Receiver<Fault>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let fault = *faults.borrow();
        let piece = &buffer[..n];
        let written = match fault {
            Fault::HalfOpen => Ok(()),
            Fault::Drip(interval) => drip(piece, &mut to, interval).await,
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                to.write_all(piece).await
            }
            _ => to.write_all(piece).await,
        };
        if written.is_err() {
            return;
        }
    }
    // nor does an end get through
    let _ = faults
        .clone()
        .wait_for(|fault| *fault != Fault::HalfOpen)
        .await;
    let _ = to.shutdown().await;
}

async fn drip(piece: &[u8], to: &mut WriteHalf<'_>, interval: Duration) -> std::io::Result<()> {
    for byte in piece {
        tokio::time::sleep(interval).await;
        to.write_all(&[*byte]).await?;
    }
    Ok(())
}
