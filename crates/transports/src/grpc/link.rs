//! The link of a session over gRPC: [`GrpcLink`].

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use network_system_core::{
    Encoding, Error, ErrorKind, InQueue, LinkInfo, MessageKind, OutQueue, Sent, Sink, Source,
};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::sync::PollSender;
use tonic::{Code, Status, Streaming};

use super::generated::{Message, message::Content};

/// Messages that go out together.
pub(super) type Batch = Vec<Message>;

/// Bytes, and messages, of one batch: what waits beyond it waits in the session's outbox.
const BATCH: usize = 64 * 1024;
const BATCH_MESSAGES: usize = 1024;
/// What gRPC adds to a message: the prefix of its frame, and a field of protobuf.
const HEADER: u64 = 5 + 2;
/// More than the envelope adds to a message.
const ENVELOPE: usize = 32;
/// Messages, and bytes, that are taken in at once.
const TAKEN: usize = 1024;
const TAKEN_BYTES: usize = 256 * 1024;

/// What comes: at once, or once the other side has answered, as some servers do with their first
/// message only.
pub(super) enum Incoming {
    Asked(Pin<Box<dyn Future<Output = Result<Streaming<Message>, Status>> + Send>>),
    Streaming(Box<Streaming<Message>>),
    /// With what came before.
    Failed(Box<Status>),
    Ended,
}

impl Incoming {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        loop {
            match self {
                Self::Asked(answer) => match ready!(answer.as_mut().poll(cx)) {
                    Ok(stream) => *self = Self::Streaming(Box::new(stream)),
                    Err(status) => {
                        *self = Self::Ended;
                        return Poll::Ready(Some(Err(status)));
                    }
                },
                Self::Streaming(stream) => return Pin::new(&mut **stream).poll_next(cx),
                Self::Failed(_) => {
                    let failed = std::mem::replace(self, Self::Ended);
                    return Poll::Ready(match failed {
                        Self::Failed(status) => Some(Err(*status)),
                        _ => None,
                    });
                }
                Self::Ended => return Poll::Ready(None),
            }
        }
    }
}

/// A session over a bidirectional stream of gRPC.
pub struct GrpcLink {
    info: LinkInfo,
    incoming: Incoming,
    outgoing: PollSender<Batch>,
}

impl GrpcLink {
    pub(super) fn new(info: LinkInfo, incoming: Incoming, outgoing: mpsc::Sender<Batch>) -> Self {
        Self {
            info,
            incoming,
            outgoing: PollSender::new(outgoing),
        }
    }

    pub(crate) fn info(&self) -> &LinkInfo {
        &self.info
    }

    pub(crate) fn is_open(&self) -> bool {
        true
    }

    fn gone(&self) -> Error {
        Error::new(ErrorKind::ConnectionClosed, "send to")
            .peer(&self.info.peer)
            .because("the stream of gRPC has ended")
    }

    fn too_large(&self, size: usize) -> Error {
        Error::new(ErrorKind::MessageTooLarge, "receive from")
            .peer(&self.info.peer)
            .because(format!(
                "a message of {size} bytes, and {} are allowed",
                self.info.max_message
            ))
    }

    /// What a status means that ends the stream.
    fn failed(&self, status: &Status) -> Error {
        let kind = match status.code() {
            Code::OutOfRange | Code::ResourceExhausted => ErrorKind::MessageTooLarge,
            Code::Internal | Code::DataLoss | Code::Unimplemented => ErrorKind::Protocol,
            Code::DeadlineExceeded => ErrorKind::Timeout,
            _ => ErrorKind::ConnectionClosed,
        };
        Error::new(kind, "receive from")
            .peer(&self.info.peer)
            .because(status.message().to_owned())
    }
}

/// Whether the other side has given the stream up, which is how clients of gRPC end one.
fn is_cancel(status: &Status) -> bool {
    if status.code() == Code::Cancelled {
        return true;
    }
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return matches!(
                error.reason(),
                Some(h2::Reason::CANCEL | h2::Reason::NO_ERROR)
            );
        }
        source = error.source();
    }
    false
}

fn incoming(message: Message) -> network_system_core::Message {
    match message.content {
        Some(Content::Binary(bytes)) => bytes.into(),
        Some(Content::Text(text)) => network_system_core::Message::from(text),
        None => network_system_core::Message::default(),
    }
}

fn outgoing(message: network_system_core::Message) -> Message {
    let content = match (message.kind(), message.as_str()) {
        (MessageKind::Text, Some(text)) => Content::Text(text.to_owned()),
        _ => Content::Binary(message.into_bytes()),
    };
    Message {
        content: Some(content),
    }
}

impl Source for GrpcLink {
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut InQueue,
    ) -> Poll<Result<bool, Error>> {
        let (mut taken, mut bytes) = (0, 0);
        let most = self.info.max_message + if self.info.envelope { ENVELOPE } else { 0 };
        while taken < TAKEN && bytes < TAKEN_BYTES {
            match self.incoming.poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    let message = incoming(message);
                    if message.len() > most {
                        return Poll::Ready(Err(self.too_large(message.len())));
                    }
                    taken += 1;
                    bytes += message.len();
                    let size = message.len() as u64 + HEADER;
                    queue.push(message, size);
                }
                // how gRPC says that somebody has gone
                Poll::Ready(Some(Err(status))) if taken == 0 && is_cancel(&status) => {
                    self.incoming = Incoming::Ended;
                    return Poll::Ready(Ok(false));
                }
                Poll::Ready(Some(Err(status))) if taken == 0 => {
                    return Poll::Ready(Err(self.failed(&status)));
                }
                Poll::Ready(None) if taken == 0 => {
                    self.incoming = Incoming::Ended;
                    return Poll::Ready(Ok(false));
                }
                // what has come goes first
                Poll::Ready(Some(Err(status))) => {
                    self.incoming = Incoming::Failed(Box::new(status));
                    break;
                }
                Poll::Ready(None) => {
                    self.incoming = Incoming::Ended;
                    break;
                }
                Poll::Pending if taken == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl Sink for GrpcLink {
    fn encoding(&self) -> Encoding {
        Encoding::Messages
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut OutQueue,
    ) -> (Sent, Poll<Result<(), Error>>) {
        let mut sent = Sent::default();
        while !queue.is_empty() {
            match self.outgoing.poll_reserve(cx) {
                Poll::Pending => return (sent, Poll::Pending),
                Poll::Ready(Err(_)) => return (sent, Poll::Ready(Err(self.gone()))),
                Poll::Ready(Ok(())) => {}
            }
            let (mut batch, mut bytes) = (Batch::new(), 0);
            while batch.len() < BATCH_MESSAGES
                && bytes < BATCH
                && let Some(message) = queue.pop_message()
            {
                bytes += message.len();
                sent.bytes += message.len() as u64 + HEADER;
                batch.push(outgoing(message));
            }
            sent.messages += batch.len() as u64;
            if self.outgoing.send_item(batch).is_err() {
                return (sent, Poll::Ready(Err(self.gone())));
            }
        }
        (sent, Poll::Ready(Ok(())))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // what was given away must have been taken before the end is told
        if self.outgoing.is_closed() {
            return Poll::Ready(Ok(()));
        }
        let _ = ready!(self.outgoing.poll_reserve(cx));
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for GrpcLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcLink")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}
