//! The layout of a benchmark message and the checks that prove its delivery.
//!
//! A message of at least [`MIN_SIZE`] bytes: its kind, 7 bytes of body, its sequence number
//! (little-endian `u64`), body. The body is the same in every message of a run, so the sum of a
//! message is the sum of its body plus its sequence number, and the sum of the first n messages
//! has a closed form: the sender need not look at a byte again to know what must arrive.

use super::error::{Error, Result};
use super::text;

/// The smallest message: kind, filler and sequence number.
pub const MIN_SIZE: usize = 16;
/// The largest message: what a server accepts by default.
pub const MAX_SIZE: usize = 16 << 20;
/// The size of an [`END`] message and of its answer.
pub const CONTROL_SIZE: usize = 64;
/// Kind of a message that is sent back as it is.
pub const ECHO: u8 = b'P';
/// Kind of a message that is counted and summed.
pub const COUNT: u8 = b'S';
/// Kind of a message that is answered with the [`Tally`] of its connection.
pub const END: u8 = b'E';

const REQUEST_TAG: [u8; 7] = *b"request";
const ANSWER_TAG: [u8; 7] = *b"tallied";

/// The wrapping sum of the little-endian `u64` words of `bytes`, the last one filled with zeros.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    // Four lanes: no addition waits for the one before it, and the compiler can use vectors.
    let (blocks, rest) = bytes.as_chunks::<32>();
    let mut lanes = [0u64; 4];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane = lane.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    let mut total = lanes
        .iter()
        .fold(0, |sum: u64, lane| sum.wrapping_add(*lane));
    let (words, tail) = rest.as_chunks::<8>();
    for word in words {
        total = total.wrapping_add(u64::from_le_bytes(*word));
    }
    for (index, byte) in tail.iter().enumerate() {
        total = total.wrapping_add(u64::from(*byte) << (8 * index));
    }
    total
}

/// The sequence number of a message, if it is long enough to have one.
#[inline]
pub fn sequence(message: &[u8]) -> Option<u64> {
    // one comparison of the length instead of two
    let [_, _, _, _, _, _, _, _, number @ ..] = message.first_chunk::<16>()?;
    Some(u64::from_le_bytes(*number))
}

/// Writes the sequence number; does nothing to a message that is too short for one.
#[inline]
pub fn set_sequence(message: &mut [u8], sequence: u64) {
    if let Some([_, _, _, _, _, _, _, _, number @ ..]) = message.first_chunk_mut::<16>() {
        *number = sequence.to_le_bytes();
    }
}

/// Every message of a run, known in advance.
#[derive(Debug, Clone)]
pub struct Pattern {
    message: Vec<u8>,
    sum: u64,
}

impl Pattern {
    /// The messages of `kind` with `size` bytes; fails when the size is out of range.
    pub fn new(kind: u8, size: usize) -> Result<Self> {
        // Neighbouring bytes differ and the period is not a power of two, so that a message
        // that is cut, shifted or mixed with another one has another sum.
        Self::with_body(kind, size, |size| {
            (0..size).map(|i| ((i * 37 + 11) % 251) as u8).collect()
        })
    }

    /// The same with lines of JSON as their body, which can be compressed as such can be.
    pub fn of_json(kind: u8, size: usize) -> Result<Self> {
        Self::with_body(kind, size, text::json)
    }

    fn with_body(kind: u8, size: usize, body: fn(usize) -> Vec<u8>) -> Result<Self> {
        if !(MIN_SIZE..=MAX_SIZE).contains(&size) {
            return Err(Error::Usage(format!(
                "a message of {size} bytes cannot be measured: it needs {MIN_SIZE} bytes (kind \
                 and sequence number) to {MAX_SIZE}"
            )));
        }
        let mut message = body(size);
        if let Some(first) = message.first_mut() {
            *first = kind;
        }
        set_sequence(&mut message, 0);
        let sum = sum(&message);
        Ok(Self { message, sum })
    }

    /// The first message, which has sequence number 0.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Size of every message in bytes.
    pub fn size(&self) -> usize {
        self.message.len()
    }

    /// The sum of the messages 0 to `count` - 1 together.
    pub fn total(&self, count: u64) -> u64 {
        let sequences = u128::from(count) * u128::from(count.saturating_sub(1)) / 2;
        self.sum.wrapping_mul(count).wrapping_add(sequences as u64)
    }

    /// Checks that `message` is the one numbered `expected`, byte for byte as far as a sum can
    /// tell; returns its sum.
    #[inline]
    pub fn check(&self, message: &[u8], expected: u64) -> Result<u64> {
        let sum = sum(message);
        if message.len() == self.message.len()
            && sequence(message) == Some(expected)
            && sum == self.sum.wrapping_add(expected)
        {
            Ok(sum)
        } else {
            Err(self.mismatch(message, expected))
        }
    }

    #[cold]
    fn mismatch(&self, message: &[u8], expected: u64) -> Error {
        let size = self.message.len();
        let got = sequence(message);
        Error::Failed(if message.len() != size {
            format!(
                "message {expected} came back with {} bytes instead of {size}",
                message.len()
            )
        } else if got == Some(expected) || got.is_none() {
            format!("checksum mismatch: message {expected} came back with changed bytes")
        } else {
            let got = got.unwrap_or_default();
            if sum(message) == self.sum.wrapping_add(got) {
                format!("out of order: message {got} came back where {expected} was due")
            } else {
                format!("checksum mismatch: not message {expected} came back where it was due")
            }
        })
    }
}

/// What one connection delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many messages.
    pub messages: u64,
    /// The wrapping sum over all their bytes, see [`sum`].
    pub checksum: u64,
    /// How many messages did not have the sequence number that was due.
    pub disorder: u64,
}

impl Tally {
    /// Counts one message.
    #[inline]
    pub fn add(&mut self, message: &[u8]) {
        self.disorder += u64::from(sequence(message) != Some(self.messages));
        self.messages += 1;
        self.checksum = self.checksum.wrapping_add(sum(message));
    }

    /// The answer to an [`END`] message.
    pub fn answer(&self) -> [u8; CONTROL_SIZE] {
        let mut answer = control(&ANSWER_TAG);
        let fields = [self.messages, self.checksum, self.disorder];
        let places = answer.as_chunks_mut::<8>().0.iter_mut().skip(1);
        for (place, field) in places.zip(fields) {
            *place = field.to_le_bytes();
        }
        answer
    }

    /// Reads an answer. Fails when a server sent the request back instead of answering it.
    pub fn from_answer(message: &[u8]) -> Result<Self> {
        let (words, _) = message.as_chunks::<8>();
        match words {
            [head, messages, checksum, disorder, ..]
                if message.len() == CONTROL_SIZE && *head == tagged(&ANSWER_TAG) =>
            {
                Ok(Self {
                    messages: u64::from_le_bytes(*messages),
                    checksum: u64::from_le_bytes(*checksum),
                    disorder: u64::from_le_bytes(*disorder),
                })
            }
            _ => Err(Error::Failed(
                "the server sends messages back instead of counting them: `stream` needs a \
                 server that answers with count and checksum. `netsys bench` without a URL \
                 starts one; `netsys bench-server --workload stream --listen URL` runs one \
                 elsewhere until its input ends"
                    .into(),
            )),
        }
    }

    /// Compares what arrived with the `count` messages of `pattern` that were sent.
    pub fn confirm(&self, pattern: &Pattern, count: u64) -> Result<()> {
        let failed = |text| Err(Error::Failed(text));
        if self.messages != count {
            return failed(format!(
                "delivery failed: {count} messages sent, {} arrived",
                self.messages
            ));
        }
        if self.checksum != pattern.total(count) {
            return failed(format!(
                "checksum mismatch: {count} messages with the sum {:#018x} sent, {:#018x} arrived",
                pattern.total(count),
                self.checksum
            ));
        }
        if self.disorder != 0 {
            return failed(format!(
                "out of order: {} of {count} messages",
                self.disorder
            ));
        }
        Ok(())
    }
}

/// The message that asks for the [`Tally`].
pub fn request() -> [u8; CONTROL_SIZE] {
    control(&REQUEST_TAG)
}

fn tagged(tag: &[u8; 7]) -> [u8; 8] {
    let [a, b, c, d, e, f, g] = *tag;
    [END, a, b, c, d, e, f, g]
}

fn control(tag: &[u8; 7]) -> [u8; CONTROL_SIZE] {
    let mut message = [0; CONTROL_SIZE];
    for (place, byte) in message.iter_mut().zip(tagged(tag)) {
        *place = byte;
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(pattern: &Pattern, number: u64) -> Vec<u8> {
        let mut message = pattern.message().to_vec();
        set_sequence(&mut message, number);
        message
    }

    #[test]
    fn the_sum_is_that_of_the_zero_filled_words() {
        for size in 0..200usize {
            let bytes: Vec<u8> = (0..size).map(|i| (i * 89 + 200) as u8).collect();
            let mut expected = 0u64;
            for chunk in bytes.chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                expected = expected.wrapping_add(u64::from_le_bytes(word));
            }
            assert_eq!(sum(&bytes), expected, "{size} bytes");
        }
    }

    #[test]
    fn the_total_is_what_a_receiver_adds_up() {
        for size in [16, 17, 23, 64, 1000, 8192] {
            let pattern = Pattern::new(COUNT, size).unwrap();
            let mut tally = Tally::default();
            for number in 0..300 {
                assert_eq!(tally.checksum, pattern.total(number));
                tally.add(&numbered(&pattern, number));
            }
            tally.confirm(&pattern, 300).unwrap();
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused_with_the_range() {
        for size in [0, 15, MAX_SIZE + 1] {
            let text = Pattern::new(ECHO, size).unwrap_err().to_string();
            assert!(text.contains("16 bytes"), "{text}");
        }
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let pattern = Pattern::new(ECHO, 77).unwrap();
        for index in 0..77 {
            let mut message = numbered(&pattern, 5);
            message[index] ^= 0x40;
            let text = pattern.check(&message, 5).unwrap_err().to_string();
            // A flip in the number itself looks like another message.
            let found = if (8..16).contains(&index) {
                "out of order"
            } else {
                "checksum mismatch"
            };
            assert!(text.contains(found), "byte {index}: {text}");
        }
    }

    #[test]
    fn order_and_length_are_checked() {
        let pattern = Pattern::new(ECHO, 64).unwrap();
        assert_eq!(
            pattern.check(&numbered(&pattern, 9), 9).unwrap(),
            pattern.sum + 9
        );
        let late = pattern
            .check(&numbered(&pattern, 8), 9)
            .unwrap_err()
            .to_string();
        assert!(late.contains("out of order: message 8"), "{late}");
        let short = pattern
            .check(&numbered(&pattern, 9)[..63], 9)
            .unwrap_err()
            .to_string();
        assert!(short.contains("63 bytes instead of 64"), "{short}");
        let tiny = pattern.check(b"P", 9).unwrap_err().to_string();
        assert!(tiny.contains("1 bytes instead of 64"), "{tiny}");
    }

    #[test]
    fn a_tally_survives_its_answer_and_an_echoed_request_does_not_pass_for_one() {
        let tally = Tally {
            messages: 3,
            checksum: u64::MAX - 1,
            disorder: 7,
        };
        assert_eq!(Tally::from_answer(&tally.answer()).unwrap(), tally);
        let text = Tally::from_answer(&request()).unwrap_err().to_string();
        assert!(text.contains("netsys bench-server"), "{text}");
    }

    #[test]
    fn loss_corruption_and_disorder_are_told_apart() {
        let pattern = Pattern::new(COUNT, 64).unwrap();
        let mut tally = Tally::default();
        for number in [0, 2, 1] {
            tally.add(&numbered(&pattern, number));
        }
        let say = |tally: &Tally, count| tally.confirm(&pattern, count).unwrap_err().to_string();
        assert!(say(&tally, 4).contains("4 messages sent, 3 arrived"));
        assert!(say(&tally, 3).contains("out of order: 2 of 3"));
        tally.checksum ^= 1;
        assert!(say(&tally, 3).contains("checksum mismatch"));
    }
}
