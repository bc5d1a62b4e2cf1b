//! A transport as a user would write one: `pipe://name`, where whole messages go through channels.
//! Nothing of it is in the library; the tests look at what reaches its sinks, and hold them up.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Waker};

use network_system::config::LinkConfig;
use network_system::{
    Address, Bound, Encoding, Endpoint, Error, ErrorKind, InQueue, Link, LinkInfo, Listener,
    Message, OutQueue, Result, Sent, Sink, Source, Transports,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Opens `pipe://` addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pipes;

/// One end of a pipe.
pub struct PipeLink {
    info: LinkInfo,
    incoming: UnboundedReceiver<Message>,
    outgoing: Option<UnboundedSender<Message>>,
    gate: Gate,
}

/// A name that is listened on.
pub struct PipeBound(Address, PipeListener);

/// Accepts pipes.
pub struct PipeListener {
    links: UnboundedReceiver<Result<PipeLink>>,
}

/// Holds the sinks of accepted pipes up while it is shut.
#[derive(Clone, Default)]
pub struct Gate(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Gate {
    pub fn shut(&self) {
        self.0.lock().unwrap().0 = true;
    }

    pub fn open(&self) {
        let wakers = {
            let mut state = self.0.lock().unwrap();
            state.0 = false;
            std::mem::take(&mut state.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        if state.0 {
            state.1.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

struct Name {
    links: UnboundedSender<Result<PipeLink>>,
    gate: Gate,
    config: LinkConfig,
}

static NAMES: LazyLock<Mutex<HashMap<String, Name>>> = LazyLock::new(Mutex::default);

/// The gate of the pipes that are accepted on a name.
pub fn gate(name: &str) -> Gate {
    NAMES.lock().unwrap()[name].gate.clone()
}

/// Makes the next accept on a name fail.
pub fn fail_accept(name: &str, error: Error) {
    let _ = NAMES.lock().unwrap()[name].links.send(Err(error));
}

fn link(
    name: &str,
    config: &LinkConfig,
    incoming: UnboundedReceiver<Message>,
    outgoing: UnboundedSender<Message>,
    gate: Gate,
) -> PipeLink {
    let end = || Endpoint::Other(name.to_owned());
    PipeLink {
        info: LinkInfo::new("pipe", end(), end(), config),
        incoming,
        outgoing: Some(outgoing),
        gate,
    }
}

impl Transports for Pipes {
    type Link = PipeLink;
    type Bound = PipeBound;

    async fn bind(
        &self,
        address: &Address,
        config: &LinkConfig,
        workers: usize,
    ) -> Result<Vec<PipeBound>> {
        assert_eq!(workers, 1, "the tests need no more");
        let (sender, links) = unbounded_channel();
        let name = Name {
            links: sender,
            gate: Gate::default(),
            config: config.clone(),
        };
        let mut names = NAMES.lock().unwrap();
        names.insert(address.host().to_owned(), name);
        Ok(vec![PipeBound(address.clone(), PipeListener { links })])
    }

    async fn connect(&self, address: &Address, config: &LinkConfig) -> Result<PipeLink> {
        let name = address.host();
        let names = NAMES.lock().unwrap();
        let listening = names
            .get(name)
            .ok_or_else(|| Error::new(ErrorKind::ConnectionRefused, "connect to").peer(address))?;
        let ((there, ours), (here, theirs)) = (unbounded_channel(), unbounded_channel());
        let gate = listening.gate.clone();
        let accepted = link(name, &listening.config, theirs, there, gate);
        let refused = |_| Error::new(ErrorKind::ConnectionRefused, "connect to").peer(address);
        listening.links.send(Ok(accepted)).map_err(refused)?;
        Ok(link(name, config, ours, here, Gate::default()))
    }
}

impl Bound for PipeBound {
    type Listener = PipeListener;

    fn local(&self) -> &Address {
        &self.0
    }

    fn start(self) -> Result<PipeListener> {
        Ok(self.1)
    }
}

impl Listener for PipeListener {
    type Link = PipeLink;

    async fn accept(&mut self) -> Result<PipeLink> {
        match self.links.recv().await {
            Some(link) => link,
            None => std::future::pending().await,
        }
    }
}

impl Source for PipeLink {
    fn poll_fill(&mut self, cx: &mut Context<'_>, queue: &mut InQueue) -> Poll<Result<bool>> {
        match self.incoming.poll_recv(cx) {
            Poll::Ready(Some(message)) => {
                let bytes = message.len() as u64;
                queue.push(message, bytes);
                Poll::Ready(Ok(true))
            }
            Poll::Ready(None) => Poll::Ready(Ok(false)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Sink for PipeLink {
    fn encoding(&self) -> Encoding {
        Encoding::Messages
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut OutQueue,
    ) -> (Sent, Poll<Result<()>>) {
        let mut sent = Sent::default();
        if self.gate.poll(cx).is_pending() {
            return (sent, Poll::Pending);
        }
        while let Some(message) = queue.pop_message() {
            sent.messages += 1;
            sent.bytes += message.len() as u64;
            let gone = match &self.outgoing {
                Some(outgoing) => outgoing.send(message).is_err(),
                None => true,
            };
            if gone {
                let error = Error::new(ErrorKind::ConnectionClosed, "send to a pipe");
                return (sent, Poll::Ready(Err(error)));
            }
        }
        (sent, Poll::Ready(Ok(())))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.outgoing = None;
        Poll::Ready(Ok(()))
    }
}

impl Link for PipeLink {
    fn info(&self) -> &LinkInfo {
        &self.info
    }
}
