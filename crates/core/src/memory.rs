//! The `memory://` transport: links inside one process, for tests and for services that live
//! together. The same framing and engine as over a socket, without one.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use tokio::io::DuplexStream;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use crate::address::Address;
use crate::config::LinkConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::link::{Bound, Endpoint, LinkInfo, Listener, Transports};
use crate::stream::StreamLink;

/// Bytes that a link holds in each direction before a write waits.
const CAPACITY: usize = 64 * 1024;

type Names = HashMap<String, Weak<Queue>>;

/// The names that are listened on.
static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

/// Where connects wait to be accepted.
struct Queue {
    sender: mpsc::Sender<DuplexStream>,
    receiver: AsyncMutex<mpsc::Receiver<DuplexStream>>,
}

/// Opens `memory://name` addresses; names are known in the whole process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory;

/// A name that has been taken.
pub struct MemoryBound {
    address: Address,
    queue: Arc<Queue>,
    config: LinkConfig,
}

/// Accepts links to a name.
pub struct MemoryListener {
    name: String,
    queue: Arc<Queue>,
    config: LinkConfig,
}

fn name(address: &Address) -> Result<&str> {
    match (address.scheme(), address.host()) {
        ("memory", "") => Err(Error::new(ErrorKind::InvalidArgument, "use the address")
            .peer(address)
            .because("a name is missing, as in memory://name")),
        ("memory", name) => Ok(name),
        _ => Err(address.unknown_scheme(&["memory"]).into()),
    }
}

fn link(stream: DuplexStream, name: &str, config: &LinkConfig) -> StreamLink<DuplexStream> {
    let end = || Endpoint::Memory(name.to_owned());
    let info = LinkInfo::new("memory", end(), end(), config);
    StreamLink::new(stream, config.session.limited_framing(), info)
}

impl Transports for Memory {
    type Link = StreamLink<DuplexStream>;
    type Bound = MemoryBound;

    async fn bind(
        &self,
        address: &Address,
        config: &LinkConfig,
        workers: usize,
    ) -> Result<Vec<MemoryBound>> {
        let name = name(address)?;
        let backlog = (config.socket.backlog as usize).clamp(1, 1 << 16);
        let (sender, receiver) = mpsc::channel(backlog);
        let queue = Arc::new(Queue {
            sender,
            receiver: AsyncMutex::new(receiver),
        });
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|_, queue| queue.strong_count() > 0);
        if names.contains_key(name) {
            return Err(Error::new(ErrorKind::BindFailed, "listen on")
                .peer(address)
                .because("the name is taken in this process"));
        }
        names.insert(name.to_owned(), Arc::downgrade(&queue));
        let bound = || MemoryBound {
            address: address.clone(),
            queue: queue.clone(),
            config: config.clone(),
        };
        Ok((0..workers).map(|_| bound()).collect())
    }

    async fn connect(&self, address: &Address, config: &LinkConfig) -> Result<Self::Link> {
        let name = name(address)?;
        let refused = || {
            Error::new(ErrorKind::ConnectionRefused, "connect to")
                .peer(address)
                .advice("no server listens on this name in this process")
        };
        let queue = {
            let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
            names
                .get(name)
                .and_then(Weak::upgrade)
                .ok_or_else(refused)?
        };
        let (ours, theirs) = tokio::io::duplex(CAPACITY);
        let sender = queue.sender.clone();
        drop(queue);
        sender.send(theirs).await.map_err(|_| refused())?;
        Ok(link(ours, name, config))
    }
}

impl Bound for MemoryBound {
    type Listener = MemoryListener;

    fn local(&self) -> &Address {
        &self.address
    }

    fn start(self) -> Result<MemoryListener> {
        let name = self.address.host().to_owned();
        Ok(MemoryListener {
            name,
            queue: self.queue,
            config: self.config,
        })
    }
}

impl Listener for MemoryListener {
    type Link = StreamLink<DuplexStream>;

    async fn accept(&mut self) -> Result<Self::Link> {
        // the queue holds a sender itself, so this cannot end
        match self.queue.receiver.lock().await.recv().await {
            Some(stream) => Ok(link(stream, &self.name, &self.config)),
            None => Err(Error::new(ErrorKind::Internal, "accept").peer(&self.name)),
        }
    }
}
