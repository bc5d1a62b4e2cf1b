//! Tests of the incoming queue: however the bytes come, the messages are the same.

use std::collections::VecDeque;
use std::task::Waker;

use super::*;

/// What the peer sends, piece by piece; an empty piece is a moment without input.
struct Pieces(VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let Some(piece) = self.0.front_mut() else {
            return Poll::Ready(Ok(()));
        };
        let n = piece.len().min(into.remaining());
        into.put_slice(&piece[..n]);
        piece.drain(..n);
        if piece.is_empty() {
            self.0.pop_front();
        }
        if n > 0 {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

/// Everything that comes out, and what the queue said at the end.
fn all(queue: &mut InQueue, mut from: Pieces) -> (Vec<Vec<u8>>, Option<Error>) {
    let mut messages = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match queue.next() {
            Ok(Some(message)) => {
                messages.push(message.to_vec());
                continue;
            }
            Ok(None) => {}
            Err(error) => return (messages, Some(error)),
        }
        match queue.poll_read(&mut cx, &mut from) {
            Poll::Ready(Ok(true)) => {}
            Poll::Ready(Ok(false)) => return (messages, None),
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => assert!(!queue.buffer.exists(), "who waits holds no buffer"),
        }
    }
}

/// A small generator, so that a failure can be repeated.
fn random(state: &mut u64, below: usize) -> usize {
    *state = state
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    (*state >> 33) as usize % below
}

fn queue(framing: &str) -> InQueue {
    InQueue::new(&Encoding::Stream(framing.parse().unwrap()))
}

#[test]
fn any_split_of_the_stream_gives_the_same_messages() {
    for seed in 0..40 {
        let mut state = seed;
        let framing = ["length", "varint", "lines", "length:2le"][random(&mut state, 4)];
        let codec: Framing = framing.parse().unwrap();
        // small ones, some around the limits of the buffers, some larger than any
        let sizes = [
            0,
            1,
            63,
            64,
            65,
            1000,
            16_000,
            HEAD - 5,
            HEAD,
            HEAD + 3,
            READ,
            300_000,
        ];
        let most = if framing == "length:2le" {
            7
        } else {
            sizes.len()
        };
        let mut want = Vec::new();
        let mut stream = Vec::new();
        for _ in 0..1 + random(&mut state, 10) {
            let size = sizes[random(&mut state, most)] + random(&mut state, 3);
            let byte = b'a' + random(&mut state, 26) as u8;
            let message = vec![byte; size];
            codec.encode(&message, &mut stream).unwrap();
            want.push(message);
        }
        let steps = [1, 7, 70, 5000, 70_000, 300_000, usize::MAX];
        let step = steps[random(&mut state, steps.len())].max(stream.len() / 10_000);
        let mut pieces = VecDeque::new();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let n = (1 + random(&mut state, step.min(rest.len()))).min(rest.len());
            pieces.push_back(rest[..n].to_vec());
            rest = &rest[n..];
            if random(&mut state, 3) == 0 {
                pieces.push_back(Vec::new());
            }
        }
        let mut queue = queue(framing);
        let (got, error) = all(&mut queue, Pieces(pieces));
        assert!(error.is_none(), "seed {seed} {framing}: {error:?}");
        assert!(got == want, "seed {seed} {framing} step {step}");
        assert_eq!(queue.received(), stream.len() as u64);
    }
}

#[test]
fn a_stream_that_ends_in_a_message_is_told_apart() {
    for (framing, stream, messages) in [("length", &b"\0\0\0\x05abc"[..], 0), ("lines", b"a\nb", 2)]
    {
        for wait in [false, true] {
            let mut pieces = VecDeque::from([stream.to_vec()]);
            if wait {
                pieces.push_back(Vec::new());
            }
            let (got, error) = all(&mut queue(framing), Pieces(pieces));
            assert_eq!(got.len(), messages);
            let kind = error.map(|error| error.kind());
            assert_eq!(kind, (messages == 0).then_some(ErrorKind::ReceiveFailed));
        }
    }
}

#[test]
fn what_came_byte_by_byte_is_not_moved_each_time() {
    let mut queue = queue("length");
    let mut stream = (HEAD as u32).to_be_bytes().to_vec();
    stream.resize(HEAD - 1, 0);
    // nothing to read in between
    let pieces = stream.iter().flat_map(|byte| [vec![*byte], vec![]]);
    let mut from = Pieces(pieces.collect());
    let mut places = std::collections::HashSet::new();
    let mut cx = Context::from_waker(Waker::noop());
    while !from.0.is_empty() {
        let _ = queue.poll_read(&mut cx, &mut from);
        assert!(queue.next().unwrap().is_none());
        places.insert(queue.rest.as_ptr());
    }
    assert_eq!(queue.rest.len(), stream.len());
    assert!(places.len() < 40, "{}", places.len());
}

#[test]
fn a_large_message_is_kept_without_another_copy() {
    let mut stream = Vec::new();
    Framing::default()
        .encode(&[7; 1 << 20], &mut stream)
        .unwrap();
    let mut queue = queue("length");
    let mut from = Pieces(VecDeque::from([stream]));
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Some(message) = queue.next().unwrap() {
            assert_eq!(message.len(), 1 << 20);
            assert_eq!(message.to_message().as_bytes().as_ptr(), message.as_ptr());
            return;
        }
        assert!(queue.poll_read(&mut cx, &mut from).is_ready());
    }
}

#[test]
fn the_memory_of_an_unfinished_message_follows_what_has_come() {
    let mut queue = queue("length");
    let mut stream = (16u32 << 20).to_be_bytes().to_vec();
    stream.resize(100_000, 0);
    let mut from = Pieces(VecDeque::from([stream, Vec::new()]));
    let mut cx = Context::from_waker(Waker::noop());
    while queue.poll_read(&mut cx, &mut from).is_ready() {
        assert!(queue.next().unwrap().is_none());
    }
    assert!(queue.rest.len() == 100_000 && queue.rest.capacity() <= 8 * 100_000);
    assert!(!queue.buffer.exists());
}

#[test]
fn what_was_taken_does_not_come_again() {
    let mut stream = Vec::new();
    Framing::default().encode(b"once", &mut stream).unwrap();
    for keeps in [false, true] {
        let mut queue = queue("length");
        queue.set_keeps(keeps);
        let mut from = Pieces(VecDeque::from([stream.clone(), vec![], stream.clone()]));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            assert!(queue.poll_read(&mut cx, &mut from).is_ready());
            assert_eq!(queue.next().unwrap().unwrap(), b"once");
            assert!(queue.next().unwrap().is_none());
            // nothing comes, or an end
            let _ = queue.poll_read(&mut cx, &mut from);
            assert!(queue.next().unwrap().is_none(), "keeps: {keeps}");
        }
    }
}
