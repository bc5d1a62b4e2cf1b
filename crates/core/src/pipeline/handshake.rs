//! How both sides of a pipeline agree: the client's offer, the server's, and, where they are to be
//! encrypted, the handshake of Noise.

use std::future::poll_fn;
use std::time::Duration;

use network_system_wire::pipeline::{MAX_HANDSHAKE, Offer, Role};
use tokio::time::Instant;

use super::noise::{Cipher, Handshake};
use super::{Keys, ReadyPipeline, steps};
use crate::config::Compression;
use crate::error::{Error, ErrorKind, Result};
use crate::in_queue::InQueue;
use crate::link::{Link, NoiseInfo, PipelineInfo};
use crate::message::Message;
use crate::out_queue::{Encoding, OutQueue};

/// How long, and for how many bytes, a peer that was refused is listened to: a socket that is closed
/// with unread input is reset, and the reset can destroy what it was told.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 256 * 1024;

/// A link below, and what is read from and written to it.
pub(super) struct Frames<L> {
    pub(super) link: L,
    pub(super) encoding: Encoding,
    pub(super) inbox: InQueue,
    pub(super) outbox: OutQueue,
}

impl<L: Link> Frames<L> {
    pub(super) fn new(link: L) -> Self {
        let encoding = link.encoding();
        Self {
            link,
            encoding,
            inbox: InQueue::default(),
            outbox: OutQueue::default(),
        }
    }

    async fn send(&mut self, frame: Vec<u8>) -> Result<()> {
        let frame = Message::from(frame);
        self.outbox.push(&self.encoding, None, &frame.by_ref())?;
        poll_fn(|cx| self.link.poll_send(cx, &mut self.outbox).1).await
    }

    async fn receive(&mut self) -> Result<Message> {
        loop {
            if let Some(frame) = self.inbox.next()? {
                return Ok(frame.to_message());
            }
            if !poll_fn(|cx| self.link.poll_fill(cx, &mut self.inbox)).await? {
                return Err(failed()
                    .because("the peer closed the connection instead of answering")
                    .advice("does it have a pipeline, with the same encryption and keys?"));
            }
        }
    }

    /// Agrees with the peer: what was agreed on, and the keys. A peer that fails to is told as far as
    /// it will understand, until `until` at most.
    pub(super) async fn agree(
        &mut self,
        pipeline: &ReadyPipeline,
        role: Role,
        until: Option<Instant>,
    ) -> Result<(PipelineInfo, Option<Cipher>)> {
        // nobody who has not agreed yet may fill our memory
        self.inbox = InQueue::new(&match &self.encoding {
            Encoding::Stream(framing) => {
                Encoding::Stream(framing.clone().with_max_message(MAX_HANDSHAKE))
            }
            Encoding::Messages => Encoding::Messages,
        });
        let agreed = self.offers(pipeline, role).await.map_err(|error| {
            // too long, cut short, not an offer
            match error.kind() {
                ErrorKind::MessageTooLarge | ErrorKind::Protocol | ErrorKind::ReceiveFailed => {
                    error.into_kind(ErrorKind::Handshake)
                }
                _ => error,
            }
        });
        match agreed {
            Ok(agreed) => {
                self.inbox.raise_limit(&self.encoding);
                Ok(agreed)
            }
            Err(error) => {
                let longest = Instant::now() + LINGER;
                let until = until.map_or(longest, |until| until.min(longest));
                let _ = tokio::time::timeout_at(until, self.linger()).await;
                Err(error.peer(&self.link.info().peer))
            }
        }
    }

    async fn offers(
        &mut self,
        pipeline: &ReadyPipeline,
        role: Role,
    ) -> Result<(PipelineInfo, Option<Cipher>)> {
        let ours = pipeline.offer(role)?;
        let mut prologue = ours.encode().to_vec();
        let theirs = match role {
            Role::Client => {
                self.send(prologue.clone()).await?;
                let answer = self.receive().await?;
                prologue.extend_from_slice(&answer);
                read_offer(&answer, Role::Server)?
            }
            Role::Server => {
                let asked = self.receive().await?;
                let theirs = read_offer(&asked, Role::Client)?;
                self.send(prologue.clone()).await?;
                prologue.splice(..0, asked.iter().copied());
                theirs
            }
        };
        if ours.noise != theirs.noise {
            return Err(disagreement(&ours, &theirs));
        }
        let noise = match pipeline.keys() {
            Some(keys) => Some(self.encrypt(&keys, role, &prologue).await?),
            None => None,
        };
        let compression = understood(pipeline.0.settings.compress, theirs.accepts);
        let (cipher, noise) = noise.unzip();
        Ok((PipelineInfo::new(compression, noise), cipher))
    }

    /// The handshake of Noise.
    async fn encrypt(
        &mut self,
        keys: &Keys,
        role: Role,
        prologue: &[u8],
    ) -> Result<(Cipher, NoiseInfo)> {
        let mut handshake = Handshake::new(keys, role, prologue)?;
        while !handshake.is_finished() {
            if handshake.is_my_turn() {
                let message = handshake.write()?;
                self.send(message).await?;
                continue;
            }
            let message = self.receive().await?;
            if message.is_empty() {
                return Err(steps::refused());
            }
            if let Err(error) = handshake.read(&message) {
                self.send(Vec::new()).await?;
                return Err(error);
            }
        }
        handshake.finish()
    }

    /// Says that no more will come, and drops what still comes.
    async fn linger(&mut self) {
        let closed = poll_fn(|cx| self.link.poll_close(cx)).await;
        while closed.is_ok() && self.inbox.received() <= LINGER_BYTES {
            self.inbox.clear();
            match poll_fn(|cx| self.link.poll_fill(cx, &mut self.inbox)).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return,
            }
        }
    }
}

fn failed() -> Error {
    Error::new(ErrorKind::Handshake, "agree on a pipeline with")
}

fn read_offer(frame: &[u8], from: Role) -> Result<Offer> {
    let offer = Offer::decode(frame).map_err(|error| {
        failed()
            .because(error)
            .advice("both sides need a pipeline, or neither")
    })?;
    if offer.role != from {
        return Err(failed()
            .because("the peer sends our own offer back, or is not the one who should")
            .advice("it has no pipeline, it seems"));
    }
    Ok(offer)
}

fn disagreement(ours: &Offer, theirs: &Offer) -> Error {
    let text = |offer: &Offer| match offer.noise {
        Some(pattern) => format!("Noise {pattern:?}"),
        None => "no encryption".to_owned(),
    };
    failed()
        .because(format_args!(
            "it insists on {}, and we on {}",
            text(theirs),
            text(ours)
        ))
        .advice("give both sides the same pipeline.noise.pattern")
}

/// What we want, if the peer can undo it.
fn understood(wanted: Compression, accepts: u8) -> Compression {
    match wanted.algorithm() {
        Some(algorithm) if accepts & algorithm.bit() == 0 => {
            tracing::debug!(%wanted, "the peer cannot undo it: messages go uncompressed");
            Compression::None
        }
        _ => wanted,
    }
}
