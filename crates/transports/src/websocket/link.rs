//! Links over WebSocket, once the handshake is done: [`WebSocketLink`].

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use network_system_core::{
    CloseReason, Encoding, Error, ErrorKind, Goodbye, InQueue, Link, LinkInfo, OutQueue, Result,
    Sent, Sink, Source,
};
use sockudo_ws::deflate::DeflateConfig;
use sockudo_ws::error::CloseReason as Words;
use sockudo_ws::protocol::Role;
use tokio::io::{AsyncRead, AsyncWrite};

use super::close;
use super::input::{Found, Input, poll_drop};
use super::output::Output;

/// A message link over WebSocket, on a stream on which the handshake has been done.
pub struct WebSocketLink<S> {
    io: S,
    role: Role,
    info: LinkInfo,
    input: Input,
    output: Output,
    state: State,
    /// What we have said, or will say, when we close.
    ours: Option<Words>,
    /// Whether that is on its way.
    said: bool,
    /// What the peer has said.
    theirs: Option<Goodbye>,
}

/// What comes from the peer.
enum State {
    Open,
    /// What was wrong behind the messages that were given out last.
    Broken(Error),
    /// After an error, or when both sides have said their goodbye: what still comes is dropped.
    Dropping,
    /// The peer has said its goodbye.
    Closed,
    /// The stream has ended.
    Ended,
}

impl<S> WebSocketLink<S> {
    /// A link on a stream; `first` has been read already.
    pub(super) fn new(
        io: S,
        role: Role,
        info: LinkInfo,
        deflate: Option<DeflateConfig>,
        first: &[u8],
    ) -> Self {
        Self {
            input: Input::new(role, info.max_message, deflate.as_ref(), first),
            output: Output::new(role, deflate),
            io,
            role,
            info,
            state: State::Open,
            ours: None,
            said: false,
            theirs: None,
        }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        &self.io
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketLink<S> {
    /// Reads once. Ready with whether there may be messages.
    fn poll_open(&mut self, cx: &mut Context<'_>, queue: &mut InQueue) -> Poll<Result<bool>> {
        // answers to pings that could not be written
        self.poll_output(cx)?;
        let (output, io) = (&mut self.output, &mut self.io);
        let mut ping = |payload: &[u8]| output.pong(payload);
        let found = ready!(self.input.poll_fill(cx, io, queue, &mut ping))
            .map_err(|error| Error::from_io("receive from", error).peer(&self.info.peer))?;
        self.poll_output(cx)?;
        match found {
            Some(Found::Open) => {}
            Some(Found::Close(words)) => {
                let (code, text) = match words {
                    Some(Words { code, reason }) => (code, reason),
                    None => (close::NONE, String::new()),
                };
                // the answer to a goodbye is the same
                self.ours.get_or_insert_with(|| Words::new(code, ""));
                self.theirs = Some(Goodbye { code, text });
                self.state = State::Closed;
            }
            Some(Found::Wrong(wrong)) => {
                let (error, words) = close::broken(wrong, self.info.max_message);
                self.ours = Some(words);
                self.state = State::Broken(error.peer(&self.info.peer));
            }
            None => {
                self.state = State::Ended;
                let cut = Error::new(ErrorKind::ConnectionClosed, "receive from")
                    .peer(&self.info.peer)
                    .because("the stream has ended without a close frame");
                return Poll::Ready(Err(cut));
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Writes what waits, as far as the stream takes it now.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        match self.output.poll_flush(cx, &mut self.io) {
            Poll::Ready(Err(error)) => Err(Error::from_io("send to", error).peer(&self.info.peer)),
            _ => Ok(()),
        }
    }

    /// Drops what comes until the stream ends.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match poll_drop(cx, &mut self.io) {
            Poll::Ready(true) => {
                self.state = State::Ended;
                Poll::Ready(())
            }
            Poll::Ready(false) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Ends the stream when both sides have said their goodbye: the server first, as RFC 6455 section
    /// 7.1.1 has it.
    fn poll_bye(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.role {
            Role::Server => {
                let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
                self.state = State::Ended;
                Poll::Ready(())
            }
            Role::Client => self.poll_end(cx),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Source for WebSocketLink<S> {
    fn poll_fill(&mut self, cx: &mut Context<'_>, queue: &mut InQueue) -> Poll<Result<bool>> {
        match &mut self.state {
            State::Open => self.poll_open(cx, queue),
            State::Broken(error) => {
                let error = error.clone();
                self.input.clear();
                self.state = State::Dropping;
                Poll::Ready(Err(error))
            }
            State::Closed if self.said => self.poll_bye(cx).map(|()| Ok(false)),
            State::Dropping => self.poll_end(cx).map(|()| Ok(false)),
            State::Closed | State::Ended => Poll::Ready(Ok(false)),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink for WebSocketLink<S> {
    fn encoding(&self) -> Encoding {
        Encoding::Messages
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut OutQueue,
    ) -> (Sent, Poll<Result<()>>) {
        let (sent, result) = self.output.poll_send(cx, &mut self.io, queue);
        let peer = &self.info.peer;
        let result = result.map_err(|error| Error::from_io("send to", error).peer(peer));
        (sent, result)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if matches!(self.state, State::Ended) {
            return Poll::Ready(Ok(()));
        }
        if !self.said {
            self.said = true;
            let ours = self.ours.get_or_insert_with(|| Words::new(1000, ""));
            let silent = ours.code == close::NONE;
            self.output.close(Some(&*ours).filter(|_| !silent));
        }
        let flushed = ready!(self.output.poll_flush(cx, &mut self.io));
        flushed.map_err(|e| Error::from_io("close the connection to", e).peer(&self.info.peer))?;
        match self.state {
            State::Closed => self.poll_bye(cx).map(Ok),
            State::Dropping => {
                // nothing that the peer could still say is of use
                let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
                Poll::Ready(Ok(()))
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Link for WebSocketLink<S> {
    fn info(&self) -> &LinkInfo {
        &self.info
    }

    fn pings(&self) -> bool {
        true
    }

    fn poll_ping(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.output.ping();
        Poll::Ready(self.poll_output(cx))
    }

    fn farewell(&mut self, reason: &CloseReason, code: Option<u16>) {
        self.ours.get_or_insert_with(|| close::words(reason, code));
    }

    fn goodbye(&self) -> Option<&Goodbye> {
        self.theirs.as_ref()
    }
}

impl<S> fmt::Debug for WebSocketLink<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketLink")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}
