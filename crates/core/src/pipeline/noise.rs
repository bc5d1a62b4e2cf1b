//! Encryption with Noise: the handshake and the records, on top of `snow`. No key is made, kept or
//! mixed here.

use network_system_wire::pipeline::{Header, MAX_CHUNK, MAX_HANDSHAKE, MAX_RECORD, Role, TAG};
use snow::{Builder, HandshakeState, TransportState};
use zeroize::Zeroizing;

use super::Keys;
use crate::config::{Noise, PublicKey};
use crate::error::{Error, ErrorKind, Result};
use crate::link::NoiseInfo;

/// Whether this build can do it, and `role` with these settings.
pub(super) fn check(noise: Option<&Noise>, role: Role) -> Result<()> {
    use network_system_wire::pipeline::Pattern;
    let knows = noise.is_none_or(|noise| {
        role == Role::Server || noise.pattern != Pattern::IK || noise.peers.len() == 1
    });
    if knows {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidArgument, "use Noise")
        .because("a client with IK needs one peer, whose key the server has"))
}

/// A new private key as 64 hexadecimal digits, and its public key.
pub(super) fn key() -> Result<(Zeroizing<String>, PublicKey)> {
    let failed =
        |error: snow::Error| Error::new(ErrorKind::Internal, "make a Noise key").because(error);
    let pattern = super::wire::Pattern::XX.protocol();
    let pair = pattern
        .parse()
        .map(Builder::new)
        .and_then(|b| b.generate_keypair());
    let pair = pair.map_err(failed)?;
    let private = Zeroizing::new(pair.private);
    let public = pair.public.first_chunk().copied().unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(2 * private.len()));
    for byte in private.iter() {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    Ok((text, PublicKey(public)))
}

/// Random bytes of the system.
pub(super) fn random() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(ErrorKind::Internal, "get random bytes").because(error))?;
    Ok(bytes)
}

/// A handshake under way.
pub(super) struct Handshake<'a> {
    state: HandshakeState,
    keys: &'a Keys,
}

impl<'a> Handshake<'a> {
    /// `prologue`: what both have said before, which must have been the same for both.
    pub(super) fn new(keys: &'a Keys, role: Role, prologue: &[u8]) -> Result<Self> {
        let build = || {
            let pattern = keys.settings.pattern.protocol().parse()?;
            let mut builder = Builder::new(pattern).prologue(prologue)?;
            if let Some(psk) = &keys.psk {
                builder = builder.psk(0, psk)?;
            }
            if let Some(key) = &keys.key {
                builder = builder.local_private_key(&key[..])?;
            }
            if role == Role::Server {
                return builder.build_responder();
            }
            match keys.settings.peers.first() {
                Some(peer) if keys.settings.pattern == super::wire::Pattern::IK => {
                    builder.remote_public_key(&peer.0)?.build_initiator()
                }
                _ => builder.build_initiator(),
            }
        };
        let state = build().map_err(|error: snow::Error| {
            Error::new(ErrorKind::InvalidArgument, "begin a Noise handshake").because(error)
        })?;
        Ok(Self { state, keys })
    }

    pub(super) fn is_finished(&self) -> bool {
        self.state.is_handshake_finished()
    }

    pub(super) fn is_my_turn(&self) -> bool {
        self.state.is_my_turn()
    }

    /// Our next message.
    pub(super) fn write(&mut self) -> Result<Vec<u8>> {
        let mut message = vec![0; MAX_HANDSHAKE];
        let n = self
            .state
            .write_message(&[], &mut message)
            .map_err(|error| {
                Error::new(ErrorKind::Handshake, "do the Noise handshake").because(error)
            })?;
        message.truncate(n);
        Ok(message)
    }

    /// Takes the peer's next message, and looks whether it is somebody who is accepted.
    pub(super) fn read(&mut self, message: &[u8]) -> Result<()> {
        let mut payload = [0; MAX_HANDSHAKE];
        self.state
            .read_message(message, &mut payload)
            .map_err(|_| {
                Error::new(ErrorKind::Handshake, "do the Noise handshake")
                    .because("the peer's part in it does not fit ours")
                    .advice("both sides need the same shared key, or each other's right public key")
            })?;
        let settings = &self.keys.settings;
        match self.peer() {
            Some(peer) if !settings.danger_accept_any_peer && !settings.peers.contains(&peer) => {
                Err(
                    Error::new(ErrorKind::Untrusted, "do the Noise handshake").because(
                        format_args!("the peer's key {peer} is not among those to accept"),
                    ),
                )
            }
            _ => Ok(()),
        }
    }

    fn peer(&self) -> Option<PublicKey> {
        let key = self.state.get_remote_static()?;
        key.first_chunk().map(|key| PublicKey(*key))
    }

    /// What it was for.
    pub(super) fn finish(self) -> Result<(Cipher, NoiseInfo)> {
        let settings = &self.keys.settings;
        let hash = self.state.get_handshake_hash().to_vec();
        let info = NoiseInfo::new(settings.pattern, self.peer(), hash);
        let (messages, bytes) = (settings.rekey_messages, settings.rekey_bytes);
        let state = self.state.into_transport_mode().map_err(|error| {
            Error::new(ErrorKind::Handshake, "do the Noise handshake").because(error)
        })?;
        let cipher = Cipher {
            state: Box::new(state),
            messages: 0,
            bytes: 0,
            limits: (messages, bytes),
        };
        Ok((cipher, info))
    }
}

/// The keys of both directions.
pub(super) struct Cipher {
    state: Box<TransportState>,
    /// Sent with this key.
    messages: u64,
    bytes: u64,
    /// What may be.
    limits: (u64, u64),
}

impl Cipher {
    /// Puts a message into `frame`, as one record or several.
    pub(super) fn seal(
        &mut self,
        header: Header,
        body: &[u8],
        plain: &mut Vec<u8>,
        frame: &mut Vec<u8>,
    ) -> Result<()> {
        self.messages += 1;
        self.bytes = self.bytes.saturating_add(body.len() as u64);
        let due = self.messages >= self.limits.0 || self.bytes >= self.limits.1;
        let rekey = due && !header.goodbye;
        let mut rest = body;
        loop {
            let (chunk, behind) = rest.split_at(rest.len().min(MAX_CHUNK));
            let last = behind.is_empty();
            let header = Header {
                more: !last,
                rekey: last && rekey,
                ..header
            };
            plain.clear();
            plain.push(header.encode());
            plain.extend_from_slice(chunk);
            let at = frame.len();
            frame.resize(at + plain.len() + TAG, 0);
            let into = frame.get_mut(at..).unwrap_or_default();
            self.state.write_message(plain, into).map_err(|error| {
                Error::new(ErrorKind::SendFailed, "encrypt a message").because(error)
            })?;
            rest = behind;
            if last {
                break;
            }
        }
        if rekey {
            self.state.rekey_outgoing();
            (self.messages, self.bytes) = (0, 0);
        }
        Ok(())
    }

    /// The header of the message in a frame; the message itself is put into `body`.
    pub(super) fn open(
        &mut self,
        frame: &[u8],
        plain: &mut Vec<u8>,
        body: &mut Vec<u8>,
    ) -> Result<Header> {
        let broken = |why: &'static str| {
            Err(Error::new(ErrorKind::Protocol, "decrypt a message").because(why))
        };
        let mut compressed = None;
        let mut rest = frame;
        loop {
            let first = rest.len() == frame.len();
            let (record, behind) = rest.split_at(rest.len().min(MAX_RECORD));
            plain.resize(record.len(), 0);
            let n = self.state.read_message(record, plain);
            let Ok(n) = n else {
                return broken("it was changed on the way, or is not the next one");
            };
            let (header, chunk) = Header::decode(plain.get(..n).unwrap_or_default(), true)?;
            if *compressed.get_or_insert(header.compressed) != header.compressed {
                return broken("its records contradict each other");
            }
            if header.more == behind.is_empty() {
                return broken("a record is missing, or there is one too many");
            }
            if header.goodbye && !first {
                return broken("a goodbye in the middle of a message");
            }
            body.extend_from_slice(chunk);
            if header.rekey {
                self.state.rekey_incoming();
            }
            if !header.more {
                return Ok(header);
            }
            rest = behind;
        }
    }
}

#[cfg(test)]
mod tests;
