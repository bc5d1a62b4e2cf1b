//! Tests of the outgoing queue.

use super::*;

fn stream() -> Encoding {
    Encoding::Stream(Framing::default())
}

/// Everything queued as the bytes that a peer would see.
fn written(queue: &mut OutQueue, step: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while !queue.is_empty() {
        let mut slices = [IoSlice::new(&[]); 4];
        let n = queue.slices(&mut slices);
        let bytes: Vec<u8> = slices[..n]
            .iter()
            .flat_map(|s| s.to_vec())
            .take(step)
            .collect();
        queue.advance(bytes.len());
        all.extend(bytes);
    }
    all
}

fn frame(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes()[..], payload].concat()
}

#[test]
fn small_and_large_messages_come_out_in_order_however_they_are_written() {
    let sizes = [0, 5, ZERO_COPY - 1, ZERO_COPY, 3, 100_000, 64, 65];
    for step in [1000, 7777, usize::MAX] {
        for tracks in [false, true] {
            let mut queue = OutQueue::new(tracks);
            let mut want = Vec::new();
            for (i, size) in sizes.iter().enumerate() {
                let payload = vec![i as u8; *size];
                queue
                    .push(&stream(), None, &Message::from(payload.clone()).by_ref())
                    .unwrap();
                want.extend(frame(&payload));
            }
            assert_eq!(queue.bytes(), want.len());
            assert_eq!(queue.messages(), sizes.len());
            assert_eq!(written(&mut queue, step), want);
            assert_eq!(queue.messages(), 0);
        }
    }
}

#[test]
fn a_large_message_is_sent_from_the_buffer_that_was_given() {
    let given = Bytes::from(vec![9; ZERO_COPY]);
    let mut queue = OutQueue::new(false);
    queue
        .push(&stream(), None, &Message::from(given.clone()).by_ref())
        .unwrap();
    let mut slices = [IoSlice::new(&[]); 4];
    assert_eq!(queue.slices(&mut slices), 2);
    assert_eq!(slices[1].as_ptr(), given.as_ptr());
}

#[test]
fn envelope_headers_are_inside_the_frame() {
    for size in [3, ZERO_COPY] {
        let mut queue = OutQueue::new(false);
        let payload = vec![1; size];
        queue
            .push(
                &stream(),
                Some(Header::Request { id: 7 }),
                &Message::from(payload.clone()).by_ref(),
            )
            .unwrap();
        let mut inner = Vec::new();
        Header::Request { id: 7 }.put(&mut inner);
        inner.extend_from_slice(&payload);
        assert_eq!(written(&mut queue, usize::MAX), frame(&inner));
    }
}

#[test]
fn what_the_framing_cannot_carry_is_refused_and_leaves_nothing() {
    let small = Encoding::Stream(Framing::default().with_max_message(10));
    let lines = Encoding::Stream("lines".parse().unwrap());
    for size in [11, ZERO_COPY] {
        let mut queue = OutQueue::new(true);
        let error = queue
            .push(&small, None, &Message::from(vec![0; size]).by_ref())
            .unwrap_err();
        assert_eq!((error.code(), error.side()), (-642, Side::Ours));
        let mut text = vec![b'x'; size];
        text[5] = b'\n';
        let error = queue
            .push(&lines, None, &Message::from(text).by_ref())
            .unwrap_err();
        assert_eq!(error.code(), -1);
        assert!(queue.is_empty() && queue.messages() == 0);
        assert!(written(&mut queue, 9).is_empty());
    }
}

#[test]
fn lines_keep_their_ends_around_large_payloads() {
    let mut queue = OutQueue::new(false);
    let lines = Encoding::Stream("lines".parse().unwrap());
    let long = "y".repeat(ZERO_COPY);
    queue
        .push(&lines, None, &Message::from("a").by_ref())
        .unwrap();
    queue
        .push(&lines, None, &Message::from(long.clone()).by_ref())
        .unwrap();
    queue
        .push(&lines, None, &Message::from("b").by_ref())
        .unwrap();
    assert_eq!(
        written(&mut queue, 999),
        format!("a\n{long}\nb\n").into_bytes()
    );
}

#[test]
fn the_oldest_is_dropped_whole_and_never_one_that_is_partly_written() {
    for big in [3, ZERO_COPY] {
        let mut queue = OutQueue::new(true);
        for i in 0..4 {
            queue
                .push(&stream(), None, &Message::from(vec![i; big]).by_ref())
                .unwrap();
        }
        assert_eq!(queue.drop_oldest(usize::MAX), Some(big + 4));
        assert_eq!(queue.advance(2), 0);
        assert_eq!(
            queue.drop_oldest(usize::MAX),
            Some(big + 4),
            "message 2, since 1 is on its way"
        );
        let rest = [&frame(&vec![1; big])[2..], &frame(&vec![3; big])].concat();
        assert_eq!(queue.bytes(), rest.len());
        assert_eq!(written(&mut queue, 5), rest);
        assert_eq!(queue.drop_oldest(usize::MAX), None);
    }
}

#[test]
fn append_keeps_the_order_and_can_take_a_part() {
    for (first, second) in [
        (0, 5),
        (5, 5),
        (5, ZERO_COPY),
        (ZERO_COPY, 5),
        (0, ZERO_COPY),
    ] {
        let mut a = OutQueue::new(true);
        let mut b = OutQueue::new(true);
        let mut want = Vec::new();
        if first > 0 {
            a.push(&stream(), None, &Message::from(vec![1; first]).by_ref())
                .unwrap();
            want.extend(frame(&vec![1; first]));
        }
        for i in 2..6 {
            b.push(&stream(), None, &Message::from(vec![i; second]).by_ref())
                .unwrap();
            want.extend(frame(&vec![i; second]));
        }
        a.append(&mut b, second + 5);
        assert_eq!(b.messages(), 2, "two whole messages moved");
        a.append(&mut b, usize::MAX);
        assert!(b.is_empty() && b.messages() == 0);
        assert_eq!(a.bytes(), want.len());
        assert_eq!(written(&mut a, 100), want);
    }
}

#[test]
fn transports_with_messages_of_their_own_get_them_back() {
    let mut queue = OutQueue::new(true);
    for text in ["one", "", "three"] {
        queue
            .push(&Encoding::Messages, None, &Message::from(text).by_ref())
            .unwrap();
    }
    assert_eq!(queue.drop_oldest(usize::MAX), Some(3 + SLOT));
    assert!(!queue.is_empty());
    assert_eq!(queue.pop_message().unwrap(), "");
    assert_eq!(queue.pop_message().unwrap(), "three");
    assert!(queue.pop_message().is_none() && queue.is_empty());
}

#[test]
fn what_the_peer_or_the_protocol_waits_for_is_not_dropped_and_is_counted() {
    let kinds = [
        Header::Data,
        Header::Hello,
        Header::Reply { id: 1 },
        Header::Data,
        Header::Pong { token: 2 },
        Header::Failure { id: 3, code: 4 },
        Header::Data,
    ];
    for (encoding, step) in [(stream(), 3), (Encoding::Messages, 1)] {
        let mut queue = OutQueue::new(true);
        for header in kinds {
            queue
                .push(&encoding, Some(header), &Message::from("x").by_ref())
                .unwrap();
        }
        let answers = queue.answers();
        assert!(answers > 13 + 14);
        assert_eq!(queue.drop_to(0), 2, "never the newest");
        assert_eq!((queue.messages(), queue.answers()), (5, answers));
        if let Encoding::Messages = encoding {
            while queue.pop_message().is_some() {}
        } else {
            let all = written(&mut queue, step);
            assert_eq!(all[4], 0x00, "the greeting stays first");
        }
        assert_eq!((queue.messages(), queue.answers()), (0, 0));
        assert_eq!(
            (queue.take_controls(), queue.take_controls()),
            (Some(2), Some(0))
        );
    }
}

/// What transports see of the first message is the one that they take, also where some were kept.
#[test]
fn the_front_is_what_is_taken() {
    let mut queue = OutQueue::new(true);
    let mut push = |header, text: &str| {
        let message = Message::from(text);
        queue.push(&Encoding::Messages, Some(header), &message.by_ref())
    };
    push(Header::Reply { id: 1 }, "a").unwrap();
    push(Header::Reply { id: 2 }, "b").unwrap();
    for text in ["c", "d", "e"] {
        push(Header::Data, text).unwrap();
    }
    assert_eq!(queue.drop_to(0), 2);
    let mut taken = 0;
    while let Some(front) = queue.front_message().cloned() {
        assert_eq!(queue.pop_message().unwrap(), front);
        taken += 1;
    }
    assert!(taken == 3 && queue.is_empty());
}

thread_local! {
    /// Messages and chunks that were looked at to drop something.
    pub(super) static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Replies that nobody reads are passed by once, and not by each drop.
#[test]
fn a_drop_costs_the_same_behind_however_many_replies() {
    const REPLIES: usize = 24_000;
    const MESSAGES: usize = 60_000;
    for encoding in [stream(), Encoding::Messages] {
        let mut queue = OutQueue::new(true);
        let push = |header, queue: &mut OutQueue| {
            let message = Message::from("twenty bytes of text");
            queue
                .push(&encoding, Some(header), &message.by_ref())
                .unwrap();
        };
        for id in 0..REPLIES as u64 {
            push(Header::Reply { id }, &mut queue);
        }
        let most = queue.bytes() + 1000;
        STEPS.set(0);
        let mut dropped = 0;
        for n in 0..MESSAGES {
            // some that may not be dropped go on to come
            let header = if n % 10 == 0 {
                Header::Reply { id: n as u64 }
            } else {
                Header::Data
            };
            push(header, &mut queue);
            dropped += queue.drop_to(most);
        }
        let steps = STEPS.get();
        assert!(dropped as usize > MESSAGES / 2, "{dropped}");
        assert!(steps < 8 * (REPLIES + MESSAGES), "{steps} steps");
        assert_eq!(
            queue.messages() as u64 + dropped,
            (REPLIES + MESSAGES) as u64
        );
    }
}

/// Everything that may be done with a queue, beside the simplest thing that can be right: a list.
#[test]
fn whatever_is_done_the_queue_is_that_of_a_list() {
    fastrand::seed(3);
    for round in 0..400 {
        let encoding = if round % 2 == 0 {
            stream()
        } else {
            Encoding::Messages
        };
        let streams = round % 2 == 0;
        // what others put in, and what is written
        let mut queues = [OutQueue::new(true), OutQueue::new(true)];
        let mut lists: [VecDeque<(Vec<u8>, bool)>; 2] = Default::default();
        // bytes of the first of the second list that were written
        let mut begun = 0;
        for n in 0..fastrand::u64(1..120) {
            let at = usize::from(fastrand::bool());
            let (queue, list) = (&mut queues[at], &mut lists[at]);
            match fastrand::u8(..10) {
                0..5 => {
                    let header = match fastrand::u8(..4) {
                        0 => Header::Reply { id: n },
                        1 => Header::Pong { token: n },
                        _ => Header::Data,
                    };
                    let size = [3, 100, ZERO_COPY][fastrand::usize(..3)];
                    let message = Message::from(vec![n as u8; size]);
                    queue
                        .push(&encoding, Some(header), &message.by_ref())
                        .unwrap();
                    let whole = with_header(Some(header), &message.by_ref());
                    list.push_back((whole.to_vec(), header == Header::Data));
                }
                5..7 => {
                    let most = fastrand::usize(..20_000);
                    let mut want = 0;
                    let size = |m: &Vec<u8>| m.len() + if streams { 4 } else { SLOT };
                    let mut bytes = list.iter().map(|(m, _)| size(m)).sum::<usize>()
                        - if at == 1 { begun } else { 0 };
                    while bytes > most {
                        let first = usize::from(at == 1 && begun > 0);
                        let end = list.len().saturating_sub(1);
                        let Some(n) = (first..end).find(|n| list[*n].1) else {
                            break;
                        };
                        bytes -= size(&list.remove(n).unwrap().0);
                        want += 1;
                    }
                    assert_eq!(queue.drop_to(most), want);
                    assert_eq!(queue.bytes(), bytes);
                }
                7 => {
                    let [from, to] = &mut queues;
                    let before = from.messages();
                    to.append(from, [1, 500, usize::MAX][fastrand::usize(..3)]);
                    let moved = before - from.messages();
                    assert!(moved > 0 || before == 0);
                    let moved: Vec<_> = lists[0].drain(..moved).collect();
                    lists[1].extend(moved);
                }
                _ if streams => {
                    let (queue, list) = (&mut queues[1], &mut lists[1]);
                    let n = fastrand::usize(..20_000).min(queue.bytes());
                    let mut slices = [IoSlice::new(&[]); 200];
                    let filled = queue.slices(&mut slices);
                    let bytes: Vec<u8> = slices[..filled]
                        .iter()
                        .flat_map(|s| s.to_vec())
                        .take(n)
                        .collect();
                    let all: Vec<u8> = list.iter().flat_map(|(m, _)| frame(m)).collect();
                    let n = bytes.len();
                    assert!(bytes == all[begun..begun + n]);
                    let done = queue.advance(n);
                    begun += n;
                    for _ in 0..done {
                        begun -= frame(&list.pop_front().unwrap().0).len();
                    }
                    let more = list.front().map_or(0, |(m, _)| frame(m).len());
                    assert!(begun == 0 || begun < more, "{begun} of {more}");
                }
                _ => {
                    let message = queues[1].pop_message().map(|m| m.to_vec());
                    assert_eq!(message, lists[1].pop_front().map(|(m, _)| m));
                }
            }
            for (queue, list) in queues.iter().zip(&lists) {
                assert_eq!(queue.messages(), list.len());
                assert_eq!(queue.is_empty(), list.is_empty());
                let size = |m: &Vec<u8>| m.len() + if streams { 4 } else { SLOT };
                let answers = list.iter().filter(|(m, _)| m[0] == 0x60);
                let answers: usize = answers.map(|(m, _)| size(m)).sum();
                assert!((answers.saturating_sub(begun)..=answers).contains(&queue.answers()));
            }
        }
    }
}
