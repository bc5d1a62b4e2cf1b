//! The outbox under every interleaving, with an owner that behaves as the driver does.

use std::sync::Arc;
use std::task::{Poll, Wake, Waker};

use loom::sync::Notify;
use loom::thread;

use super::super::*;

/// A waker that a model's thread can sleep on; a sleep that nobody ends is a deadlock, which loom
/// reports.
struct Bell(Notify);

impl Bell {
    fn new() -> (Arc<Self>, Waker) {
        let bell = Arc::new(Self(Notify::new()));
        (bell.clone(), Waker::from(bell))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

/// Puts in one message of `size` bytes.
fn put(outbox: &Outbox, size: usize) -> Result<(), Refused> {
    let frame = crate::out_queue::OneFrame::Small(vec![7; size]);
    outbox.put(size, |queue| {
        queue.push_encoded(&frame);
        Ok(())
    })
}

/// Waits for room as a sender does.
fn wait_for_room(outbox: &Outbox, size: usize) -> Result<()> {
    let (bell, waker) = Bell::new();
    let mut key = None;
    loop {
        match outbox.poll_room(size, None, &mut key, &waker) {
            Poll::Ready(result) => return result,
            Poll::Pending => bell.0.wait(),
        }
    }
}

/// The driver's write with a transport that takes everything: bytes written, and the command if
/// one came.
fn write(outbox: &Outbox, owned: &mut usize, waker: &Waker) -> (usize, Option<Command>) {
    let (mut written, mut command) = (0, None);
    let mut hold = Hold {
        owned,
        command: &mut command,
        most: usize::MAX,
        tracks: false,
    };
    let mut cx = Context::from_waker(waker);
    let mut queue = OutQueue::new(false);
    let result = outbox.write(&mut queue, &mut hold, &mut cx, |_, queue| {
        written += queue.bytes();
        queue.advance(queue.bytes());
        Poll::Ready(Ok(()))
    });
    assert!(matches!(result, Poll::Ready(Ok(()))));
    (written, command)
}

/// An owner that sleeps whenever nothing is ready, until `total` bytes are written.
fn write_all(outbox: &Outbox, total: usize) {
    let (bell, waker) = Bell::new();
    let (mut written, mut owned) = (0, 0);
    loop {
        written += write(outbox, &mut owned, &waker).0;
        if written >= total {
            assert_eq!(written, total);
            return;
        }
        bell.0.wait();
    }
}

#[test]
fn no_message_is_left_while_the_owner_sleeps() {
    model(|| {
        let outbox = Arc::new(Outbox::new(100, 50, false));
        let senders = [3, 5].map(|size| {
            let outbox = outbox.clone();
            thread::spawn(move || assert!(put(&outbox, size).is_ok()))
        });
        write_all(&outbox, 8);
        senders.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn a_command_reaches_the_owner_beside_a_message() {
    model(|| {
        let outbox = Arc::new(Outbox::new(100, 50, false));
        let sender = outbox.clone();
        let sender = thread::spawn(move || assert!(put(&sender, 3).is_ok()));
        let closer = outbox.clone();
        let closer = thread::spawn(move || {
            closer.command(Command::Close(CloseReason::Requested("done".into())));
        });
        let (bell, waker) = Bell::new();
        let (mut written, mut owned, mut told) = (0, 0, false);
        while !(told && written == 3) {
            let (now, command) = write(&outbox, &mut owned, &waker);
            written += now;
            if let Some(command) = command {
                assert!(matches!(command, Command::Close(_)) && outbox.is_stopped());
                told = true;
            }
            if !(told && written == 3) {
                bell.0.wait();
            }
        }
        sender.join().unwrap();
        closer.join().unwrap();
    });
}

#[test]
fn a_waiting_sender_sees_the_room_or_is_woken() {
    model(|| {
        let outbox = Arc::new(Outbox::new(4, 2, false));
        // what the owner has taken and still has to write
        assert!(put(&outbox, 4).is_ok());
        let (_, waker) = Bell::new();
        let mut queue = OutQueue::new(false);
        outbox.take(&mut queue, usize::MAX, &waker);
        let sender = outbox.clone();
        let sender = thread::spawn(move || wait_for_room(&sender, 4).is_ok());
        queue.advance(4);
        // the last thing that the owner does before it sleeps for good
        outbox.set_owned(queue.bytes());
        assert!(sender.join().unwrap());
        assert!(!outbox.has_waiters());
    });
}

#[test]
fn close_hands_back_what_was_taken_and_fails_the_rest() {
    model(|| {
        let outbox = Arc::new(Outbox::new(100, 50, false));
        let senders = [3, 5].map(|size| {
            let outbox = outbox.clone();
            thread::spawn(move || match put(&outbox, size) {
                Ok(()) => size,
                Err(Refused::Error(_)) => 0,
                Err(Refused::Full) => panic!("there was room"),
            })
        });
        let mut left = OutQueue::new(false);
        outbox.close(&CloseReason::Cut, &mut left);
        let taken: usize = senders.into_iter().map(|t| t.join().unwrap()).sum();
        assert_eq!(left.bytes(), taken);
        assert_eq!(outbox.foreign_bytes(), 0);
    });
}

#[test]
fn close_fails_a_sender_that_waits() {
    model(|| {
        let outbox = Arc::new(Outbox::new(4, 2, false));
        assert!(put(&outbox, 4).is_ok());
        let sender = outbox.clone();
        let sender = thread::spawn(move || wait_for_room(&sender, 1).is_err());
        outbox.close(&CloseReason::Cut, &mut OutQueue::new(false));
        assert!(sender.join().unwrap());
    });
}

#[test]
fn one_that_gives_up_takes_no_wake_up_from_the_next() {
    model(|| {
        let outbox = Arc::new(Outbox::new(4, 2, false));
        assert!(put(&outbox, 4).is_ok());
        let (_, waker) = Bell::new();
        let mut queue = OutQueue::new(false);
        outbox.take(&mut queue, usize::MAX, &waker);
        let fickle = outbox.clone();
        let fickle = thread::spawn(move || {
            let (_, waker) = Bell::new();
            let mut key = None;
            let _ = fickle.poll_room(1, None, &mut key, &waker);
            if let Some(key) = key {
                fickle.cancel(key);
            }
        });
        let patient = outbox.clone();
        let patient = thread::spawn(move || wait_for_room(&patient, 1).is_ok());
        queue.advance(4);
        outbox.set_owned(queue.bytes());
        fickle.join().unwrap();
        assert!(patient.join().unwrap());
        assert!(!outbox.has_waiters());
    });
}
