//! Questions that differ, and the only right answer to each.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes of filler at most.
const MOST: usize = 2048;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A question that nobody else asks: its number, and filler that follows from it.
#[derive(Clone, Copy)]
pub struct Question(pub u64);

impl Question {
    pub fn new() -> Self {
        Self(NEXT.fetch_add(1, Relaxed))
    }

    pub fn text(self) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(self.0);
        let mut text = vec![0; 8 + random.usize(..MOST)];
        random.fill(&mut text[8..]);
        text[..8].copy_from_slice(&self.0.to_be_bytes());
        text
    }

    /// Whether it is the answer to this question, and all of it.
    pub fn is_answered_by(self, given: &[u8]) -> bool {
        answer(&self.text()) == given
    }
}

/// The answer: the same number, and every other byte inverted, so that an echo is none.
pub fn answer(question: &[u8]) -> Vec<u8> {
    let keep = question.len().min(8);
    let inverted = question[keep..].iter().map(|byte| !byte);
    question[..keep].iter().copied().chain(inverted).collect()
}

/// The question that something claims to answer.
pub fn of(given: &[u8]) -> Option<Question> {
    let number = given.first_chunk()?;
    Some(Question(u64::from_be_bytes(*number)))
}
