//! Messages as the body of an answer: as events ([`Events`]), or one after the other ([`Bodies`]).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use network_system_core::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::Opened;
use crate::http::BoxError;

/// Messages as an event stream (HTML, section 9.2).
pub(super) struct Events {
    messages: mpsc::Receiver<Message>,
    greeting: Option<Bytes>,
    /// After which a comment shows that the stream lives, also to what is in between.
    interval: Option<Duration>,
    quiet: Option<Pin<Box<Sleep>>>,
    /// Ends with the stream.
    _opened: Option<Opened>,
}

impl Events {
    pub(super) fn new(messages: mpsc::Receiver<Message>, interval: Option<Duration>) -> Self {
        Self {
            messages,
            greeting: None,
            interval,
            quiet: None,
            _opened: None,
        }
    }

    /// Begins with the secret of the session.
    pub(super) fn greeting(mut self, secret: &str) -> Self {
        self.greeting = Some(format!("event: session\ndata: {secret}\n\n").into());
        self
    }

    pub(super) fn holding(mut self, opened: Opened) -> Self {
        self._opened = Some(opened);
        self
    }

    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(interval) = self.interval else {
            return Poll::Pending;
        };
        let quiet = self
            .quiet
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(interval)));
        ready!(quiet.as_mut().poll(cx));
        quiet.as_mut().reset(Instant::now() + interval);
        Poll::Ready(())
    }
}

/// A message as an event: text as it is, line by line; what is no text, or has line ends that would
/// not stay what they are, as `base64`.
fn event(message: &Message) -> Bytes {
    let mut event = BytesMut::with_capacity(message.len() + 16);
    match message.as_str().filter(|text| !text.contains('\r')) {
        Some(text) => {
            for line in text.split('\n') {
                event.put_slice(b"data: ");
                event.put_slice(line.as_bytes());
                event.put_u8(b'\n');
            }
        }
        None => {
            event.put_slice(b"event: base64\ndata: ");
            event.put_slice(STANDARD.encode(message).as_bytes());
            event.put_u8(b'\n');
        }
    }
    event.put_u8(b'\n');
    event.freeze()
}

impl Body for Events {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(greeting) = this.greeting.take() {
            return Poll::Ready(Some(Ok(Frame::data(greeting))));
        }
        if let Poll::Ready(message) = this.messages.poll_recv(cx) {
            if let (Some(quiet), Some(interval)) = (&mut this.quiet, this.interval) {
                quiet.as_mut().reset(Instant::now() + interval);
            }
            return Poll::Ready(message.map(|message| Ok(Frame::data(event(&message)))));
        }
        ready!(this.poll_quiet(cx));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b":\n\n")))))
    }
}

/// Messages one after the other.
pub(super) struct Bodies {
    first: std::array::IntoIter<Message, 2>,
    messages: mpsc::Receiver<Message>,
}

impl Bodies {
    pub(super) fn new(first: [Message; 2], messages: mpsc::Receiver<Message>) -> Self {
        Self {
            first: first.into_iter(),
            messages,
        }
    }
}

impl Body for Bodies {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let message = match this.first.next() {
            Some(message) => Some(message),
            None => ready!(this.messages.poll_recv(cx)),
        };
        Poll::Ready(message.map(|message| Ok(Frame::data(message.into_bytes()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_carry_every_message() {
        let event = |message: &[u8]| event(&Message::copy_from(message));
        assert_eq!(event(b""), "data: \n\n");
        assert_eq!(event(b"one"), "data: one\n\n");
        assert_eq!(event(b"one\ntwo\n"), "data: one\ndata: two\ndata: \n\n");
        assert_eq!(event(b" a: b"), "data:  a: b\n\n");
        assert_eq!(event(b"a\r\nb"), "event: base64\ndata: YQ0KYg==\n\n");
        assert_eq!(event(&[0xff]), "event: base64\ndata: /w==\n\n");
    }
}
