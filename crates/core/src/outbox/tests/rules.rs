//! The rules of the outbox, one by one.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize as Count;
use std::task::{Poll, Wake, Waker};

use super::super::*;

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(Count);

impl Bell {
    fn new() -> (Arc<Self>, Waker) {
        let bell = Arc::new(Self::default());
        (bell.clone(), Waker::from(bell))
    }

    fn rung(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn push(size: usize) -> impl FnOnce(&mut OutQueue) -> Result<()> {
    let frame = crate::out_queue::OneFrame::Small(vec![7; size]);
    move |queue| {
        queue.push_encoded(&frame);
        Ok(())
    }
}

fn put(outbox: &Outbox, size: usize) -> bool {
    outbox.put(size, push(size)).is_ok()
}

fn take_all(outbox: &Outbox, queue: &mut OutQueue) -> Option<Command> {
    outbox.take(queue, usize::MAX, Waker::noop())
}

#[test]
fn it_takes_messages_up_to_its_limit_and_counts_what_the_owner_holds() {
    let outbox = Outbox::new(10, 5, false);
    assert!(put(&outbox, 6) && put(&outbox, 4));
    assert!(matches!(outbox.put(1, push(1)), Err(Refused::Full)));
    assert_eq!((outbox.bytes(), outbox.foreign_bytes()), (10, 10));
    let mut queue = OutQueue::new(false);
    take_all(&outbox, &mut queue);
    assert_eq!((outbox.bytes(), outbox.foreign_bytes()), (10, 0));
    assert!(!put(&outbox, 1), "what is taken and not written counts");
    outbox.set_owned(9);
    assert!(put(&outbox, 1) && !put(&outbox, 1));
}

#[test]
fn a_message_larger_than_the_outbox_fits_only_an_empty_one() {
    let outbox = Outbox::new(10, 5, false);
    assert!(put(&outbox, 1));
    assert!(!put(&outbox, 11));
    take_all(&outbox, &mut OutQueue::new(false));
    assert!(!put(&outbox, 11), "the owner still holds a byte");
    outbox.set_owned(0);
    assert!(put(&outbox, 11));
}

#[test]
fn control_messages_always_fit() {
    let outbox = Outbox::new(10, 5, false);
    assert!(put(&outbox, 10));
    assert!(outbox.put_control(push(3)).is_ok());
    assert_eq!(outbox.bytes(), 13);
}

#[test]
fn the_oldest_are_dropped_until_the_new_one_fits() {
    let outbox = Outbox::new(10, 5, true);
    for want in [0, 0, 0] {
        assert_eq!(outbox.put_dropping(push(3)).ok(), Some(want));
    }
    assert_eq!(outbox.put_dropping(push(5)).ok(), Some(2));
    assert_eq!(outbox.bytes(), 8);
    // what the owner has taken cannot be dropped any more, and does not stop the new one
    let mut queue = OutQueue::new(true);
    take_all(&outbox, &mut queue);
    assert_eq!(outbox.put_dropping(push(9)).ok(), Some(0));
    assert_eq!((queue.messages(), outbox.foreign_bytes()), (2, 9));
}

#[test]
fn a_failed_push_is_the_senders_error_and_what_came_before_it_stays() {
    let outbox = Outbox::new(10, 5, false);
    let result = outbox.put(4, |queue| {
        push(2)(queue)?;
        Err(Error::new(ErrorKind::InvalidArgument, "send a message"))
    });
    assert!(matches!(result, Err(Refused::Error(_))));
    assert!(outbox.is_ready());
    assert_eq!(outbox.foreign_bytes(), 2);
}

#[test]
fn the_owner_is_woken_once_per_batch() {
    let outbox = Outbox::new(10, 5, false);
    let (bell, waker) = Bell::new();
    assert!(outbox.is_ready(), "the first look registers the owner");
    outbox.take(&mut OutQueue::new(false), usize::MAX, &waker);
    assert!(!outbox.is_ready());
    assert!(put(&outbox, 1) && put(&outbox, 1));
    assert_eq!(bell.rung(), 1);
    outbox.take(&mut OutQueue::new(false), usize::MAX, &waker);
    assert!(put(&outbox, 1));
    assert_eq!(bell.rung(), 2);
}

#[test]
fn an_owner_that_takes_nothing_still_gets_commands_and_stays_ready() {
    let outbox = Outbox::new(10, 5, true);
    assert!(put(&outbox, 3));
    outbox.command(Command::Cut(CloseReason::Cut));
    let mut queue = OutQueue::new(true);
    let command = outbox.take(&mut queue, 0, Waker::noop());
    assert!(matches!(command, Some(Command::Cut(_))));
    assert!(queue.is_empty() && outbox.is_ready());
    // and of more than it wants, whole messages until there are enough
    assert!(put(&outbox, 3) && put(&outbox, 3));
    outbox.take(&mut queue, 4, Waker::noop());
    assert_eq!((queue.messages(), outbox.foreign_bytes()), (2, 3));
    assert!(outbox.is_ready());
}

#[test]
fn close_hands_back_what_is_inside_and_fails_every_sender() {
    let outbox = Outbox::new(10, 5, true);
    assert!(put(&outbox, 10));
    let (bell, waker) = Bell::new();
    let mut key = None;
    assert!(outbox.poll_room(1, None, &mut key, &waker).is_pending());
    let mut left = OutQueue::new(true);
    outbox.close(&CloseReason::Idle, &mut left);
    outbox.close(&CloseReason::Cut, &mut left);
    assert_eq!((left.bytes(), outbox.foreign_bytes()), (10, 0));
    assert!(matches!(outbox.closed(), Some(CloseReason::Cut)));
    assert!(bell.rung() > 0);
    let room = outbox.poll_room(1, None, &mut key, &waker);
    assert!(matches!(room, Poll::Ready(Err(_))));
    assert!(matches!(outbox.put(1, push(1)), Err(Refused::Error(_))));
    assert!(outbox.put_control(push(1)).is_err());
    assert!(outbox.put_dropping(push(1)).is_err());
    assert_eq!(outbox.foreign_bytes(), 0);
}

#[test]
fn a_cut_replaces_a_close_and_the_first_of_a_kind_stays() {
    let close = |text: &str| Command::Close(CloseReason::Requested(text.into()));
    let outbox = Outbox::new(10, 5, false);
    assert!(!outbox.is_stopped() && outbox.stop_reason().is_none());
    outbox.command(close("first"));
    outbox.command(close("second"));
    assert!(matches!(outbox.stop_reason(), Some(CloseReason::Requested(t)) if t == "first"));
    assert!(outbox.is_stopped() && !outbox.is_cut());
    outbox.command(Command::Cut(CloseReason::Overflow));
    outbox.command(Command::Cut(CloseReason::Cut));
    outbox.command(close("third"));
    assert!(matches!(outbox.stop_reason(), Some(CloseReason::Overflow)));
    assert!(outbox.is_cut());
}

#[test]
fn a_shutdown_lets_the_received_be_handled_until_it_cuts() {
    let outbox = Outbox::new(10, 5, false);
    outbox.command(Command::Close(CloseReason::Shutdown));
    assert!(!outbox.is_stopped());
    outbox.command(Command::Cut(CloseReason::Cut));
    assert!(outbox.is_stopped());
}

#[test]
fn waiting_senders_keep_their_place_until_they_see_room_or_give_up() {
    let outbox = Outbox::new(10, 5, false);
    assert!(put(&outbox, 10));
    take_all(&outbox, &mut OutQueue::new(false));
    let ((bell, waker), (other, other_waker)) = (Bell::new(), Bell::new());
    let (mut key, mut other_key) = (None, None);
    assert!(outbox.poll_room(6, None, &mut key, &waker).is_pending());
    let place = key;
    assert!(outbox.poll_room(6, None, &mut key, &waker).is_pending());
    assert_eq!(key, place);
    let polled = outbox.poll_room(6, None, &mut other_key, &other_waker);
    assert!(polled.is_pending() && key != other_key);
    outbox.set_owned(6);
    assert_eq!((bell.rung(), other.rung()), (0, 0), "not low enough yet");
    outbox.cancel(other_key.unwrap());
    outbox.set_owned(5);
    assert_eq!((bell.rung(), other.rung()), (1, 0));
    // woken, but no room for this one: it stays in line
    assert!(outbox.poll_room(6, None, &mut key, &waker).is_pending());
    outbox.set_owned(4);
    assert_eq!(bell.rung(), 2);
    assert!(outbox.poll_room(6, None, &mut key, &waker).is_ready());
    assert!(key.is_none() && !outbox.has_waiters());
}
