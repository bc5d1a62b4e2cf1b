//! The lane of the running connection: while a connection's own task is being polled, its queue
//! lies in a thread-local, so that its handler sends without a lock.

use std::cell::Cell;
use std::mem::ManuallyDrop;

use crate::out_queue::OutQueue;

/// No session's id.
pub(crate) const NOBODY: u64 = 0;

/// The queue of the connection whose task this thread polls now.
struct Lane {
    /// The session's id, or [`NOBODY`].
    owner: Cell<u64>,
    /// Away while it is worked with. Nothing is in here at a thread's end, so it needs no
    /// destructor, after which one would have to ask at each access.
    queue: Cell<Option<ManuallyDrop<Box<OutQueue>>>>,
}

thread_local! {
    static LANE: Lane = const {
        Lane { owner: Cell::new(NOBODY), queue: Cell::new(None) }
    };
}

/// Puts a queue back, also when the work with it panics (a codec of the user's may).
struct Borrowed<'a> {
    lane: &'a Lane,
    queue: Option<ManuallyDrop<Box<OutQueue>>>,
}

impl Drop for Borrowed<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.lane.queue.set(self.queue.take());
    }
}

/// Runs `work` with the queue of session `owner`, if its task is the one that runs here.
#[inline(always)]
pub(crate) fn with<R>(owner: u64, work: impl FnOnce(&mut OutQueue) -> R) -> Option<R> {
    LANE.with(|lane| {
        if lane.owner.get() != owner {
            return None;
        }
        let queue = lane.queue.take();
        let mut borrowed = Borrowed { lane, queue };
        borrowed.queue.as_deref_mut().map(|queue| work(queue))
    })
}

/// Takes the queue of session `owner`, if its task is the one that runs here, until it is
/// [put back](put) before that task goes on.
#[inline(always)]
pub(crate) fn take(owner: u64) -> Option<Box<OutQueue>> {
    LANE.with(|lane| {
        if lane.owner.get() != owner {
            return None;
        }
        lane.queue.take().map(ManuallyDrop::into_inner)
    })
}

/// Puts back what [`take`] has given.
#[inline(always)]
pub(crate) fn put(queue: Box<OutQueue>) {
    LANE.with(|lane| lane.queue.set(Some(ManuallyDrop::new(queue))));
}

/// Takes the queue of session `owner` away for good: the rest of this [`enter`] finds none.
#[cold]
pub(crate) fn leave(owner: u64) -> Option<Box<OutQueue>> {
    LANE.with(|lane| {
        if lane.owner.get() != owner {
            return None;
        }
        lane.owner.set(NOBODY);
        lane.queue.take().map(ManuallyDrop::into_inner)
    })
}

/// Lays `queue` into the lane as that of session `owner`, runs `work`, and takes it out again,
/// also when `work` panics. Calls may be nested.
pub(crate) fn enter<R>(
    owner: u64,
    queue: &mut Option<Box<OutQueue>>,
    work: impl FnOnce() -> R,
) -> R {
    struct Restore<'a> {
        outer: u64,
        queue: &'a mut Option<Box<OutQueue>>,
    }
    impl Drop for Restore<'_> {
        fn drop(&mut self) {
            swap(self.outer, self.queue);
        }
    }
    fn swap(owner: u64, queue: &mut Option<Box<OutQueue>>) -> u64 {
        LANE.with(|lane| {
            let inner = queue.take().map(ManuallyDrop::new);
            *queue = lane.queue.replace(inner).map(ManuallyDrop::into_inner);
            lane.owner.replace(owner)
        })
    }
    let outer = swap(owner, queue);
    let _restore = Restore { outer, queue };
    work()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::out_queue::Encoding;

    #[test]
    fn lanes_nest_and_survive_panics() {
        let push = |q: &mut OutQueue| {
            q.push(&Encoding::Messages, None, &Message::from("x").by_ref())
                .unwrap()
        };
        let queue = || Some(Box::new(OutQueue::new(false)));
        let (mut a, mut b) = (queue(), queue());
        assert!(with(1, |_| ()).is_none());
        enter(1, &mut a, || {
            assert!(with(1, push).is_some());
            assert!(with(2, push).is_none());
            enter(2, &mut b, || {
                assert!(with(2, push).is_some() && with(1, push).is_none())
            });
            assert!(with(1, push).is_some());
        });
        let messages = |queue: &Option<Box<OutQueue>>| queue.as_ref().unwrap().messages();
        assert_eq!((messages(&a), messages(&b)), (2, 1));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            enter(1, &mut a, || panic!("handler"));
        }));
        assert!(caught.is_err());
        assert!(with(1, |_| ()).is_none());
        assert_eq!(messages(&a), 2);
        enter(1, &mut a, || {
            assert!(leave(2).is_none());
            assert_eq!(leave(1).map(|q| q.messages()), Some(2));
            assert!(leave(1).is_none() && with(1, |_| ()).is_none());
        });
        assert!(a.is_none());
    }
}
