//! A byte stream whose input a test provides, and which records every write.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use network_system::config::LinkConfig;
use network_system::{
    Address, Bound, Endpoint, Framing, LinkInfo, Listener, Result, StreamLink, Transports,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A stream whose input the test provides, and which records every write.
#[derive(Clone, Default)]
pub struct Scripted(Arc<Mutex<Script>>);

#[derive(Default)]
pub struct Script {
    input: VecDeque<u8>,
    ended: bool,
    writes: Vec<Write>,
    /// Bytes that a write may take; `None` for any number.
    pub room: Option<usize>,
    /// Whether writes fail.
    pub broken: bool,
    waker: Option<Waker>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    pub bytes: Vec<u8>,
    /// Where its slices were in memory.
    pub slices: Vec<(usize, usize)>,
}

impl Scripted {
    pub fn with<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        let mut script = self.0.lock().unwrap();
        let result = change(&mut script);
        if let Some(waker) = script.waker.take() {
            waker.wake();
        }
        result
    }

    pub fn give(&self, bytes: &[u8]) {
        self.with(|script| script.input.extend(bytes));
    }

    pub fn end(&self) {
        self.with(|script| script.ended = true);
    }

    pub fn writes(&self) -> Vec<Write> {
        self.with(|script| std::mem::take(&mut script.writes))
    }

    pub fn connect(&self, framing: Framing) -> network_system_core::Connection<StreamLink<Self>> {
        let mut config = LinkConfig::default();
        config.session.framing = framing.clone();
        let end = || Endpoint::Other("script".to_owned());
        let info = LinkInfo::new("script", end(), end(), &config);
        let link = StreamLink::new(self.clone(), framing, info);
        network_system_core::Connection::new(link, &config.session)
    }
}

impl AsyncRead for Scripted {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut script = self.0.lock().unwrap();
        if script.input.is_empty() && !script.ended {
            script.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = script.input.len().min(buffer.remaining());
        let bytes: Vec<u8> = script.input.drain(..n).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut script = self.0.lock().unwrap();
        if script.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let all = slices.iter().flat_map(|slice| slice.iter().copied());
        let bytes: Vec<u8> = all.take(script.room.unwrap_or(usize::MAX)).collect();
        if bytes.is_empty() {
            script.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some(room) = &mut script.room {
            *room -= bytes.len();
        }
        let at = |slice: &IoSlice<'_>| (slice.as_ptr() as usize, slice.len());
        let n = bytes.len();
        script.writes.push(Write {
            bytes,
            slices: slices.iter().map(at).collect(),
        });
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A transport whose listener accepts scripted streams: the stream of each connect.
#[derive(Clone, Default)]
pub struct Scripts {
    streams: Arc<Mutex<Vec<UnboundedSender<Scripted>>>>,
}

/// Accepts scripted streams.
pub struct ScriptListener {
    address: Address,
    config: LinkConfig,
    streams: UnboundedReceiver<Scripted>,
}

impl Scripts {
    /// A connection of a peer that the test plays, to the first listener.
    pub fn dial(&self) -> Scripted {
        let stream = Scripted::default();
        let accepted = self.streams.lock().unwrap()[0].send(stream.clone());
        assert!(accepted.is_ok(), "nobody listens any more");
        stream
    }
}

fn link(stream: Scripted, config: &LinkConfig) -> StreamLink<Scripted> {
    let end = || Endpoint::Other("script".to_owned());
    let info = LinkInfo::new("script", end(), end(), config);
    StreamLink::new(stream, config.session.limited_framing(), info)
}

impl Transports for Scripts {
    type Link = StreamLink<Scripted>;
    type Bound = ScriptListener;

    async fn bind(
        &self,
        address: &Address,
        config: &LinkConfig,
        _workers: usize,
    ) -> Result<Vec<ScriptListener>> {
        let (sender, streams) = unbounded_channel();
        self.streams.lock().unwrap().push(sender);
        Ok(vec![ScriptListener {
            address: address.clone(),
            config: config.clone(),
            streams,
        }])
    }

    async fn connect(&self, _: &Address, config: &LinkConfig) -> Result<Self::Link> {
        Ok(link(self.dial(), config))
    }
}

impl Bound for ScriptListener {
    type Listener = Self;

    fn local(&self) -> &Address {
        &self.address
    }

    fn start(self) -> Result<Self> {
        Ok(self)
    }
}

impl Listener for ScriptListener {
    type Link = StreamLink<Scripted>;

    async fn accept(&mut self) -> Result<Self::Link> {
        match self.streams.recv().await {
            Some(stream) => Ok(link(stream, &self.config)),
            None => std::future::pending().await,
        }
    }
}
