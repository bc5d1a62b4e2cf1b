//! Who may use which connection of a pool: limits, idle items and the queue of waiters, without any
//! input or output, so that loom can explore it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::sync::{Mutex, lock};

/// What a waiter gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got<T> {
    /// An idle item, now in use.
    Item(T),
    /// Room for a new one, which counts as in use.
    Room,
}

/// Why a waiter gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Closed,
    TooManyWaiters,
}

/// The most of everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) per_key: usize,
    pub(super) total: usize,
    pub(super) waiting: usize,
}

/// What is there of one key, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Level {
    pub(super) open: usize,
    pub(super) idle: usize,
    pub(super) waiting: usize,
}

struct Key<T> {
    /// Idle, in use and being made.
    open: usize,
    /// The one that was used last is at the back, and is used next: the others can expire.
    idle: VecDeque<T>,
}

struct Waiter {
    ticket: u64,
    key: Arc<str>,
    waker: Option<Waker>,
}

struct State<T> {
    closed: bool,
    open: usize,
    next: u64,
    keys: HashMap<Arc<str>, Key<T>>,
    /// In the order in which they came.
    waiters: VecDeque<Waiter>,
    /// What waiters have been given and not taken yet.
    granted: HashMap<u64, (Arc<str>, Got<T>)>,
}

/// What is to be done once the lock is released: wakers and destructors are others' code.
struct After<T> {
    wake: Vec<Waker>,
    evicted: Vec<T>,
}

impl<T> After<T> {
    fn new() -> Self {
        Self {
            wake: Vec::new(),
            evicted: Vec::new(),
        }
    }

    /// Wakes, and hands back what had to go.
    fn run(self) -> Vec<T> {
        self.wake.into_iter().for_each(Waker::wake);
        self.evicted
    }
}

pub(super) struct Slots<T> {
    limits: Limits,
    state: Mutex<State<T>>,
}

impl<T> State<T> {
    fn key(&mut self, key: &Arc<str>) -> &mut Key<T> {
        self.keys.entry(key.clone()).or_insert_with(|| Key {
            open: 0,
            idle: VecDeque::new(),
        })
    }

    /// One of `key` is gone.
    fn forget_one(&mut self, key: &Arc<str>) {
        self.open = self.open.saturating_sub(1);
        if let Some(found) = self.keys.get_mut(key) {
            found.open = found.open.saturating_sub(1);
            if found.open == 0 {
                self.keys.remove(key);
            }
        }
    }

    /// Makes room in the total: an idle item of the key that has most of them, its oldest.
    fn evict(&mut self) -> Option<T> {
        let most = self.keys.iter().max_by_key(|(_, key)| key.idle.len());
        let name = most.map(|(name, _)| name.clone())?;
        let item = self.keys.get_mut(&name)?.idle.pop_front()?;
        self.forget_one(&name);
        Some(item)
    }

    /// What `key` can have now.
    fn grant(&mut self, key: &Arc<str>, limits: &Limits, evicted: &mut Vec<T>) -> Option<Got<T>> {
        if let Some(item) = self
            .keys
            .get_mut(key)
            .and_then(|found| found.idle.pop_back())
        {
            return Some(Got::Item(item));
        }
        if self.keys.get(key).map_or(0, |found| found.open) >= limits.per_key {
            return None;
        }
        if self.open >= limits.total {
            evicted.push(self.evict()?);
        }
        self.key(key).open += 1;
        self.open += 1;
        Some(Got::Room)
    }

    /// Serves waiters, first come first, as far as there is something for them. A waiter that
    /// cannot be served does not hold up those of other keys.
    fn settle(&mut self, limits: &Limits, after: &mut After<T>) {
        let mut at = 0;
        while at < self.waiters.len() {
            let key = self.waiters[at].key.clone();
            match self.grant(&key, limits, &mut after.evicted) {
                None => at += 1,
                Some(got) => {
                    if let Some(waiter) = self.waiters.remove(at) {
                        self.granted.insert(waiter.ticket, (key, got));
                        after.wake.extend(waiter.waker);
                    }
                }
            }
        }
    }

    /// Takes back what is not wanted any more; what is to be dropped.
    fn give_back(&mut self, key: &Arc<str>, got: Got<T>) -> Option<T> {
        match got {
            Got::Item(item) if !self.closed => {
                self.key(key).idle.push_back(item);
                None
            }
            Got::Item(item) => {
                self.forget_one(key);
                Some(item)
            }
            Got::Room => {
                self.forget_one(key);
                None
            }
        }
    }
}

impl<T> Slots<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::new(State {
                closed: false,
                open: 0,
                next: 0,
                keys: HashMap::new(),
                waiters: VecDeque::new(),
                granted: HashMap::new(),
            }),
        }
    }

    /// Queues up; the ticket for [`poll`](Self::poll), and what had to go to make room.
    pub(super) fn enter(&self, key: &Arc<str>) -> Result<(u64, Vec<T>), Refused> {
        let mut after = After::new();
        let mut state = lock(&self.state);
        if state.closed {
            return Err(Refused::Closed);
        }
        let ticket = state.next;
        state.next += 1;
        // those before it have what there is for them: only the newcomer can have more
        match state.grant(key, &self.limits, &mut after.evicted) {
            Some(got) => {
                state.granted.insert(ticket, (key.clone(), got));
            }
            None if state.waiters.len() >= self.limits.waiting => {
                return Err(Refused::TooManyWaiters);
            }
            None => state.waiters.push_back(Waiter {
                ticket,
                key: key.clone(),
                waker: None,
            }),
        }
        drop(state);
        Ok((ticket, after.run()))
    }

    /// What the ticket's holder has been given; the ticket is used up then.
    pub(super) fn poll(&self, ticket: u64, waker: &Waker) -> Poll<Result<Got<T>, Refused>> {
        let mut state = lock(&self.state);
        if let Some((_, got)) = state.granted.remove(&ticket) {
            return Poll::Ready(Ok(got));
        }
        match state.waiters.iter_mut().find(|w| w.ticket == ticket) {
            Some(waiter) => {
                waiter.waker = Some(waker.clone());
                Poll::Pending
            }
            None => Poll::Ready(Err(Refused::Closed)),
        }
    }

    /// The ticket's holder waits no more; what it has been given goes to the next.
    pub(super) fn leave(&self, ticket: u64) -> Vec<T> {
        let mut after = After::new();
        let mut state = lock(&self.state);
        if let Some((key, got)) = state.granted.remove(&ticket) {
            let dropped = state.give_back(&key, got);
            after.evicted.extend(dropped);
            state.settle(&self.limits, &mut after);
        } else {
            state.waiters.retain(|waiter| waiter.ticket != ticket);
        }
        drop(state);
        after.run()
    }

    /// Returns an item that was in use; what is to be dropped.
    pub(super) fn put(&self, key: &Arc<str>, item: T) -> Vec<T> {
        let mut after = After::new();
        let mut state = lock(&self.state);
        let dropped = state.give_back(key, Got::Item(item));
        after.evicted.extend(dropped);
        state.settle(&self.limits, &mut after);
        drop(state);
        after.run()
    }

    /// An item that was in use, or was to be made, is gone.
    pub(super) fn release(&self, key: &Arc<str>) -> Vec<T> {
        let mut after = After::new();
        let mut state = lock(&self.state);
        state.forget_one(key);
        state.settle(&self.limits, &mut after);
        drop(state);
        after.run()
    }

    /// Room for one more of `key`, where it has fewer than `least` and nobody waits.
    pub(super) fn reserve(&self, key: &Arc<str>, least: usize) -> bool {
        let mut state = lock(&self.state);
        let open = state.keys.get(key).map_or(0, |found| found.open);
        let full = open >= least.min(self.limits.per_key) || state.open >= self.limits.total;
        if state.closed || full || !state.waiters.is_empty() {
            return false;
        }
        state.key(key).open += 1;
        state.open += 1;
        true
    }

    /// Takes out all idle items, in their order; they count as in use until they are
    /// [put back](Self::put) or [released](Self::release).
    pub(super) fn take_idle(&self) -> Vec<(Arc<str>, T)> {
        let mut state = lock(&self.state);
        let each = state.keys.iter_mut().flat_map(|(name, key)| {
            let items = std::mem::take(&mut key.idle);
            items.into_iter().map(|item| (name.clone(), item))
        });
        each.collect()
    }

    /// Nothing is handed out any more; the idle items, and those that have been given and not taken.
    pub(super) fn close(&self) -> Vec<T> {
        let mut state = lock(&self.state);
        state.closed = true;
        let waiters = std::mem::take(&mut state.waiters);
        let mut idle = Vec::new();
        for (key, got) in std::mem::take(&mut state.granted).into_values() {
            idle.extend(state.give_back(&key, got));
        }
        let names: Vec<_> = state.keys.keys().cloned().collect();
        for name in names {
            while let Some(item) = state.keys.get_mut(&name).and_then(|k| k.idle.pop_front()) {
                idle.push(item);
                state.forget_one(&name);
            }
        }
        drop(state);
        let wakers = waiters.into_iter().filter_map(|waiter| waiter.waker);
        wakers.for_each(Waker::wake);
        idle
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    /// What there is of all keys.
    pub(super) fn level(&self) -> Level {
        let state = lock(&self.state);
        Level {
            open: state.open,
            idle: state.keys.values().map(|key| key.idle.len()).sum(),
            waiting: state.waiters.len(),
        }
    }

    /// Whether there is anything of `key`.
    pub(super) fn knows(&self, key: &str) -> bool {
        lock(&self.state).keys.contains_key(key)
    }
}

#[cfg(all(test, not(network_system_loom)))]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may
mod tests {
    use super::*;

    fn slots(per_key: usize, total: usize) -> Slots<u32> {
        Slots::new(Limits {
            per_key,
            total,
            waiting: 3,
        })
    }

    fn poll(slots: &Slots<u32>, ticket: u64) -> Poll<Result<Got<u32>, Refused>> {
        slots.poll(ticket, Waker::noop())
    }

    #[test]
    fn first_come_first_served_and_the_one_that_left_loses_nothing() {
        let slots = slots(1, 9);
        let key: Arc<str> = "a".into();
        let tickets: Vec<u64> = (0..4).map(|_| slots.enter(&key).unwrap().0).collect();
        assert_eq!(poll(&slots, tickets[0]), Poll::Ready(Ok(Got::Room)));
        assert_eq!(slots.enter(&key), Err(Refused::TooManyWaiters));
        assert!(poll(&slots, tickets[1]).is_pending());
        slots.put(&key, 7);
        // it has been given the item, and leaves without it
        slots.leave(tickets[1]);
        assert!(poll(&slots, tickets[3]).is_pending());
        assert_eq!(poll(&slots, tickets[2]), Poll::Ready(Ok(Got::Item(7))));
        slots.release(&key);
        assert_eq!(poll(&slots, tickets[3]), Poll::Ready(Ok(Got::Room)));
        slots.release(&key);
        assert_eq!(slots.level(), Level::default());
        assert!(!slots.knows("a"), "no trace of a key is left");
    }

    #[test]
    fn an_idle_item_of_another_key_makes_room() {
        let slots = slots(2, 1);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = slots.enter(&a).unwrap().0;
        assert_eq!(poll(&slots, first), Poll::Ready(Ok(Got::Room)));
        let second = slots.enter(&b).unwrap().0;
        assert!(poll(&slots, second).is_pending());
        assert_eq!(slots.put(&a, 1), [1], "it has to go");
        assert_eq!(poll(&slots, second), Poll::Ready(Ok(Got::Room)));
        assert_eq!(slots.level().open, 1);
    }

    #[test]
    fn a_closed_one_refuses_and_takes_nothing_back() {
        let slots = slots(1, 1);
        let key: Arc<str> = "a".into();
        let first = slots.enter(&key).unwrap().0;
        assert_eq!(poll(&slots, first), Poll::Ready(Ok(Got::Room)));
        let second = slots.enter(&key).unwrap().0;
        assert!(slots.close().is_empty());
        assert_eq!(poll(&slots, second), Poll::Ready(Err(Refused::Closed)));
        assert_eq!(slots.enter(&key), Err(Refused::Closed));
        assert!(!slots.reserve(&key, 1));
        assert_eq!(slots.put(&key, 5), [5]);
        assert_eq!(slots.level(), Level::default());
    }

    #[test]
    fn what_was_given_and_not_taken_ends_with_closing() {
        let slots = slots(1, 2);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = slots.enter(&a).unwrap().0;
        assert_eq!(poll(&slots, first), Poll::Ready(Ok(Got::Room)));
        slots.put(&a, 7);
        let item = slots.enter(&a).unwrap().0;
        let room = slots.enter(&b).unwrap().0;
        assert_eq!(slots.close(), [7]);
        for ticket in [item, room] {
            assert_eq!(poll(&slots, ticket), Poll::Ready(Err(Refused::Closed)));
            assert!(slots.leave(ticket).is_empty());
        }
        assert_eq!(slots.level(), Level::default());
    }
}

#[cfg(all(test, network_system_loom))]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may
mod loom_models {
    use std::task::Wake;

    use loom::sync::Notify;
    use loom::thread;

    use super::*;

    /// A sleep that nobody ends is a deadlock, which loom reports.
    struct Bell(Notify);

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

    fn slots() -> loom::sync::Arc<Slots<u32>> {
        loom::sync::Arc::new(Slots::new(Limits {
            per_key: 1,
            total: 1,
            waiting: 9,
        }))
    }

    fn acquire(slots: &Slots<u32>, key: &Arc<str>) -> Result<Got<u32>, Refused> {
        let (ticket, _) = slots.enter(key)?;
        wait(slots, ticket)
    }

    fn wait(slots: &Slots<u32>, ticket: u64) -> Result<Got<u32>, Refused> {
        let bell = Arc::new(Bell(Notify::new()));
        let waker = Waker::from(bell.clone());
        loop {
            match slots.poll(ticket, &waker) {
                Poll::Ready(got) => return got,
                Poll::Pending => bell.0.wait(),
            }
        }
    }

    #[test]
    fn loom_no_wakeup_is_lost_and_one_at_a_time() {
        model(|| {
            let slots = slots();
            let used = loom::sync::Arc::new(loom::sync::atomic::AtomicUsize::new(0));
            let users: Vec<_> = (0..2)
                .map(|n| {
                    let (slots, used) = (slots.clone(), used.clone());
                    thread::spawn(move || {
                        let key: Arc<str> = "a".into();
                        acquire(&slots, &key).unwrap();
                        let before = used.fetch_add(1, loom::sync::atomic::Ordering::SeqCst);
                        assert_eq!(before, 0);
                        used.fetch_sub(1, loom::sync::atomic::Ordering::SeqCst);
                        if n == 0 {
                            slots.put(&key, 1);
                        } else {
                            slots.release(&key);
                        }
                    })
                })
                .collect();
            users.into_iter().for_each(|user| user.join().unwrap());
            let level = slots.level();
            assert_eq!(level.open, level.idle, "nothing is in use");
            assert!(level.open <= 1 && level.waiting == 0);
        });
    }

    #[test]
    fn loom_a_cancelled_waiter_leaks_nothing() {
        model(|| {
            let slots = slots();
            let key: Arc<str> = "a".into();
            acquire(&slots, &key).unwrap();
            let (quits, _) = slots.enter(&key).unwrap();
            let quitter = {
                let slots = slots.clone();
                thread::spawn(move || drop(slots.leave(quits)))
            };
            let waiter = {
                let (slots, key) = (slots.clone(), key.clone());
                thread::spawn(move || {
                    acquire(&slots, &key).unwrap();
                    slots.release(&key);
                })
            };
            slots.put(&key, 1);
            quitter.join().unwrap();
            waiter.join().unwrap();
            assert_eq!(slots.level(), Level::default());
        });
    }

    #[test]
    fn loom_closing_wakes_who_waits() {
        model(|| {
            let slots = slots();
            let key: Arc<str> = "a".into();
            acquire(&slots, &key).unwrap();
            let waiter = {
                let (slots, key) = (slots.clone(), key.clone());
                thread::spawn(move || acquire(&slots, &key))
            };
            slots.close();
            assert_eq!(waiter.join().unwrap(), Err(Refused::Closed));
            assert_eq!(slots.put(&key, 1), [1]);
            assert_eq!(slots.level(), Level::default());
        });
    }

    /// Two in the queue, and one that comes while the item is returned: nobody overtakes.
    #[test]
    fn loom_who_came_first_is_served_first() {
        model(|| {
            let slots = slots();
            let key: Arc<str> = "a".into();
            acquire(&slots, &key).unwrap();
            let first = slots.enter(&key).unwrap().0;
            let second = slots.enter(&key).unwrap().0;
            let turn = loom::sync::Arc::new(loom::sync::atomic::AtomicUsize::new(0));
            let serve = |ticket: Option<u64>, place: usize| {
                let (slots, key, turn) = (slots.clone(), key.clone(), turn.clone());
                thread::spawn(move || {
                    let got = match ticket {
                        Some(ticket) => wait(&slots, ticket),
                        None => acquire(&slots, &key),
                    };
                    assert_eq!(got, Ok(Got::Item(1)));
                    let before = turn.fetch_add(1, loom::sync::atomic::Ordering::SeqCst);
                    assert_eq!(before, place);
                    slots.put(&key, 1);
                })
            };
            let late = serve(None, 2);
            let waiters = [serve(Some(second), 1), serve(Some(first), 0)];
            slots.put(&key, 1);
            waiters.into_iter().for_each(|user| user.join().unwrap());
            late.join().unwrap();
            assert_eq!((slots.level().open, slots.level().idle), (1, 1));
        });
    }

    /// The one in front leaves while the item comes back: the next one has it, not the newcomer.
    #[test]
    fn loom_the_place_of_one_that_leaves_goes_to_the_next() {
        model(|| {
            let slots = slots();
            let key: Arc<str> = "a".into();
            acquire(&slots, &key).unwrap();
            let first = slots.enter(&key).unwrap().0;
            let second = slots.enter(&key).unwrap().0;
            let quitter = {
                let slots = slots.clone();
                thread::spawn(move || drop(slots.leave(first)))
            };
            let newcomer = {
                let (slots, key) = (slots.clone(), key.clone());
                thread::spawn(move || {
                    let (ticket, _) = slots.enter(&key).unwrap();
                    // the second has it, or has not taken it yet
                    let bell = Waker::from(Arc::new(Bell(Notify::new())));
                    assert!(slots.poll(ticket, &bell).is_pending());
                    slots.leave(ticket);
                })
            };
            slots.put(&key, 1);
            quitter.join().unwrap();
            newcomer.join().unwrap();
            assert_eq!(wait(&slots, second), Ok(Got::Item(1)));
            slots.release(&key);
            assert_eq!(slots.level(), Level::default());
        });
    }
}
