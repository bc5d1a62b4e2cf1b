//! The link of a session of the gateway: messages that came as bodies, and answers on their way to
//! one. [`GatewayLink`].

use std::fmt;
use std::task::{Context, Poll, ready};

use network_system_core::{
    Encoding, Error, ErrorKind, InQueue, LinkInfo, Message, OutQueue, Result, Sent, Sink, Source,
};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use crate::http::HttpConnection;

/// A session of the message gateway.
pub struct GatewayLink {
    info: LinkInfo,
    incoming: mpsc::Receiver<Message>,
    outgoing: PollSender<Message>,
}

impl GatewayLink {
    pub(super) fn new(
        connection: &HttpConnection,
        incoming: mpsc::Receiver<Message>,
        outgoing: mpsc::Sender<Message>,
    ) -> Self {
        Self {
            info: connection.info().clone(),
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
            .because("the client waits for no answer any more")
    }
}

impl Source for GatewayLink {
    fn poll_fill(&mut self, cx: &mut Context<'_>, queue: &mut InQueue) -> Poll<Result<bool>> {
        Poll::Ready(Ok(match ready!(self.incoming.poll_recv(cx)) {
            Some(message) => {
                let bytes = message.len() as u64;
                queue.push(message, bytes);
                true
            }
            None => false,
        }))
    }
}

impl Sink for GatewayLink {
    fn encoding(&self) -> Encoding {
        Encoding::Messages
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut OutQueue,
    ) -> (Sent, Poll<Result<()>>) {
        let mut sent = Sent::default();
        while !queue.is_empty() {
            match self.outgoing.poll_reserve(cx) {
                Poll::Pending => return (sent, Poll::Pending),
                Poll::Ready(Err(_)) => return (sent, Poll::Ready(Err(self.gone()))),
                Poll::Ready(Ok(())) => {}
            }
            let Some(message) = queue.pop_message() else {
                break;
            };
            sent.messages += 1;
            sent.bytes += message.len() as u64;
            if self.outgoing.send_item(message).is_err() {
                return (sent, Poll::Ready(Err(self.gone())));
            }
        }
        (sent, Poll::Ready(Ok(())))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for GatewayLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayLink")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}
