//! The pipeline's bytes: the offer with which both sides begin, and the header that says what was
//! done to a message. PROTOCOL.md, "The pipeline", has it for other implementations.

use crate::WireError;

/// What an offer begins with; another version is another name.
pub const MAGIC: [u8; 4] = *b"NSP1";

/// Bytes of an offer. What follows is ignored.
pub const OFFER: usize = 24;

/// Largest frame before the pipeline is open: every offer and every Noise handshake message fits.
pub const MAX_HANDSHAKE: usize = 1024;

/// Largest Noise message, as the Noise specification has it.
pub const MAX_RECORD: usize = 65_535;

/// Bytes that Noise adds to a record: its authentication tag.
pub const TAG: usize = 16;

/// Most bytes of a message in one record, behind its header.
pub const MAX_CHUNK: usize = MAX_RECORD - TAG - 1;

/// Who makes an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Connected.
    Client,
    /// Accepted.
    Server,
}

/// How messages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Algorithm {
    /// An lz4 block.
    Lz4 = 1,
    /// Raw deflate (RFC 1951).
    Deflate = 2,
    /// One zstd frame (RFC 8878).
    Zstd = 3,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Lz4, Self::Deflate, Self::Zstd];

    /// Its bit in [`Offer::accepts`].
    #[must_use]
    pub const fn bit(self) -> u8 {
        1 << (self as u8)
    }

    /// The most bytes that `len` compressed ones can become, whatever they claim. With it nobody
    /// reserves memory for what a peer only says.
    #[must_use]
    pub const fn most(self, len: usize) -> usize {
        match self {
            // a byte more of a length is up to 255 bytes more
            Self::Lz4 => len.saturating_mul(255).saturating_add(64),
            // 258 bytes in two bits
            Self::Deflate => len.saturating_mul(1032).saturating_add(64),
            // a block of 128 KiB in four bytes
            Self::Zstd => len.saturating_mul(32 * 1024).saturating_add(64),
        }
    }
}

/// Which handshake of the Noise protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Pattern {
    /// A key that both sides share.
    NNpsk0 = 1,
    /// Both sides have keys of their own, and show them to each other.
    XX = 2,
    /// The same, and the client knows the server's before.
    IK = 3,
}

impl Pattern {
    /// Its full name in the Noise framework.
    #[must_use]
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::NNpsk0 => "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s",
            Self::XX => "Noise_XX_25519_ChaChaPoly_BLAKE2s",
            Self::IK => "Noise_IK_25519_ChaChaPoly_BLAKE2s",
        }
    }
}

/// The first frame of each side: what it understands and what it insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Who says it: so that nobody takes his own words, sent back, for an answer.
    pub role: Role,
    /// The [bits](Algorithm::bit) of the compressions that it can undo. Unknown ones are ignored.
    pub accepts: u8,
    /// The encryption that it insists on. Both must insist on the same.
    pub noise: Option<Pattern>,
    /// Random bytes, so that no handshake is like another and none can be sent again; 0 where nothing
    /// is encrypted.
    pub random: [u8; 16],
}

impl Offer {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; OFFER] {
        let [a, b, c, d] = MAGIC;
        let role = match self.role {
            Role::Client => b'c',
            Role::Server => b's',
        };
        let noise = self.noise.map_or(0, |pattern| pattern as u8);
        let mut bytes = [0; OFFER];
        let (fixed, random) = bytes.split_at_mut(8);
        fixed.copy_from_slice(&[a, b, c, d, role, self.accepts, noise, 0]);
        random.copy_from_slice(&self.random);
        bytes
    }

    /// The offer in a frame.
    ///
    /// # Errors
    /// [`WireError::Invalid`] says what the frame is instead.
    pub fn decode(frame: &[u8]) -> Result<Self, WireError> {
        let invalid = |text: &'static str| Err(WireError::Invalid(text.into()));
        if frame.first_chunk() == Some(&[0, b'N', b'S', b'E']) {
            return invalid("the peer begins with an envelope, and has no pipeline");
        }
        let offer = frame.split_first_chunk();
        let Some(([a, b, c, d, role, accepts, noise, _], rest)) = offer else {
            return invalid("the peer does not begin with an offer, and so has no pipeline");
        };
        if [*a, *b, *c] != MAGIC[..3] {
            return invalid("the peer does not begin with an offer, and so has no pipeline");
        }
        if *d != MAGIC[3] {
            return invalid("the peer has a pipeline of another version");
        }
        let Some(random) = rest.first_chunk() else {
            return invalid("the peer's offer is cut short");
        };
        Ok(Self {
            random: *random,
            role: match role {
                b'c' => Role::Client,
                b's' => Role::Server,
                _ => return invalid("the offer is neither a client's nor a server's"),
            },
            accepts: *accepts,
            noise: match noise {
                0 => None,
                1 => Some(Pattern::NNpsk0),
                2 => Some(Pattern::XX),
                3 => Some(Pattern::IK),
                _ => return invalid("the peer insists on an encryption that is not known here"),
            },
        })
    }
}

/// The byte before a message, or before each record of one that is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// How the message is compressed; the same in each of its records.
    pub compressed: Option<Algorithm>,
    /// The message goes on in the next record of this frame.
    pub more: bool,
    /// The sender has another key from the next record on.
    pub rekey: bool,
    /// No message: the sender says that nothing more will come.
    pub goodbye: bool,
}

const MORE: u8 = 0x10;
const REKEY: u8 = 0x20;
const GOODBYE: u8 = 0x40;

impl Header {
    /// Its byte.
    #[must_use]
    pub fn encode(self) -> u8 {
        self.compressed.map_or(0, |algorithm| algorithm as u8)
            | if self.more { MORE } else { 0 }
            | if self.rekey { REKEY } else { 0 }
            | if self.goodbye { GOODBYE } else { 0 }
    }

    /// The header and what follows it; `encrypted`: whether it came in a record.
    ///
    /// # Errors
    /// [`WireError::Invalid`] for a byte that means nothing here.
    pub fn decode(bytes: &[u8], encrypted: bool) -> Result<(Self, &[u8]), WireError> {
        let invalid = |text: &'static str| Err(WireError::Invalid(text.into()));
        let Some((byte, rest)) = bytes.split_first() else {
            return invalid("a message without its pipeline header");
        };
        let allowed = 0x0f | if encrypted { MORE | REKEY | GOODBYE } else { 0 };
        if byte & !allowed != 0 {
            return invalid("a pipeline header with bits that mean nothing here");
        }
        let header = Self {
            compressed: match byte & 0x0f {
                0 => None,
                1 => Some(Algorithm::Lz4),
                2 => Some(Algorithm::Deflate),
                3 => Some(Algorithm::Zstd),
                _ => return invalid("a message with a compression that is not known here"),
            },
            more: byte & MORE != 0,
            rekey: byte & REKEY != 0,
            goodbye: byte & GOODBYE != 0,
        };
        if header.more && header.rekey {
            return invalid("another key in the middle of a message");
        }
        if header.goodbye && (*byte != GOODBYE || !rest.is_empty()) {
            return invalid("a goodbye with something in it");
        }
        Ok((header, rest))
    }
}

/// The size that a compressed message says it had, and the compressed bytes.
///
/// # Errors
/// [`WireError::MessageTooLarge`] above `limit`, [`WireError::Invalid`] when so few bytes cannot
/// become so many: before anybody reserves memory.
pub fn packed(
    body: &[u8],
    algorithm: Algorithm,
    limit: usize,
) -> Result<(usize, &[u8]), WireError> {
    let Some((size, bytes)) = body.split_first_chunk() else {
        return Err(WireError::Invalid(
            "a compressed message without its size".into(),
        ));
    };
    let size = u32::from_be_bytes(*size);
    crate::error::check_size(size as usize, limit)?;
    if size as usize > algorithm.most(bytes.len()) {
        return Err(WireError::Invalid(
            "a compressed message that is too short for the size that it says".into(),
        ));
    }
    Ok((size as usize, bytes))
}

/// Bytes of the largest frame that a message of `message` bytes becomes.
#[must_use]
pub const fn frame_limit(message: usize, encrypted: bool) -> usize {
    if !encrypted {
        return message.saturating_add(1);
    }
    let records = message.div_ceil(MAX_CHUNK);
    let records = if records == 0 { 1 } else { records };
    message.saturating_add(records.saturating_mul(TAG + 1))
}

/// Bytes of the largest message that fits a frame of `frame` bytes.
#[must_use]
pub const fn message_limit(frame: usize, encrypted: bool) -> usize {
    if !encrypted {
        return frame.saturating_sub(1);
    }
    let rest = (frame % MAX_RECORD).saturating_sub(TAG + 1);
    frame / MAX_RECORD * MAX_CHUNK + rest
}

#[cfg(test)]
mod tests;
