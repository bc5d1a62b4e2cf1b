//! Our side at work: what is done with each message, by a handler for each of it, so that no
//! figure depends on how the code of another one was compiled.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use network_system::{Handler, Inbox, MessageRef, Outgoing, Result, Session};

/// Bytes of a burst at most: so much comes with one read, and goes with one write.
pub const BURST: usize = 16 * 1024;

/// First byte of the last message of a burst.
pub const LAST: u8 = b'L';

/// The length before a message, as the default framing has it.
const HEAD: usize = 4;

/// A message of `size` bytes on the wire, which begins with `first`.
pub fn frame(first: u8, size: usize) -> Vec<u8> {
    // neighbouring bytes differ, so that a message that is one byte off is another one
    let mut message: Vec<u8> = (0..size).map(|at| (at * 37 + 11) as u8).collect();
    if let Some(byte) = message.first_mut() {
        *byte = first;
    }
    framed(&message)
}

/// What [`Take`] answers to the last message, on the wire: how many messages there were.
pub fn tally(count: u64) -> Vec<u8> {
    framed(&count.to_be_bytes())
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + message.len());
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

/// What is done with each message in the loop over a batch, the way of the least cost.
pub trait Deed: Send + Sync + 'static {
    /// Does it.
    ///
    /// # Errors
    /// A message could not be sent.
    fn act(&self, message: &MessageRef<'_>, outgoing: &mut Outgoing<'_>) -> Result<()>;
}

/// Counts the messages, and answers the last of a burst with the [`tally`].
#[derive(Default)]
pub struct Take(AtomicU64);

impl Deed for Take {
    #[inline(always)]
    fn act(&self, message: &MessageRef<'_>, outgoing: &mut Outgoing<'_>) -> Result<()> {
        let counted = self.0.fetch_add(1, Relaxed) + 1;
        if message.first() != Some(&LAST) {
            return Ok(());
        }
        self.0.store(0, Relaxed);
        outgoing.send(&counted.to_be_bytes()[..])
    }
}

/// Sends a burst of the message.
pub struct Give;

impl Deed for Give {
    #[inline(always)]
    fn act(&self, message: &MessageRef<'_>, outgoing: &mut Outgoing<'_>) -> Result<()> {
        (0..BURST / message.len().max(1)).try_for_each(|_| outgoing.send(message))
    }
}

/// Sends the message back.
pub struct Echo;

impl Deed for Echo {
    #[inline(always)]
    fn act(&self, message: &MessageRef<'_>, outgoing: &mut Outgoing<'_>) -> Result<()> {
        outgoing.send(message)
    }
}

/// The handler that does its deed with each message.
pub struct Doing<D>(pub D);

impl<D: Deed> Handler for Doing<D> {
    async fn on_message(&self, _: &Session, _: &MessageRef<'_>) -> Result<()> {
        // all come through `on_batch`
        Ok(())
    }

    async fn on_batch(&self, session: &Session, inbox: &mut Inbox<'_>) -> Result<()> {
        inbox.each(session, |message, outgoing| self.0.act(message, outgoing))
    }
}

/// Sends each message back, in as few lines as there can be.
pub struct PlainEcho;

impl Handler for PlainEcho {
    async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
        session.send(message).await
    }
}

/// Sends each message to all sessions; an empty one only back, to who wants to know whether it is one.
pub struct Broadcast;

impl Handler for Broadcast {
    async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
        if message.is_empty() {
            return session.send(message).await;
        }
        session.sessions().broadcast(message);
        Ok(())
    }
}
