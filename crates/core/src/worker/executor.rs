//! The loop of one worker thread: polls the tasks that can go on, then waits for events.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use mio::{Registry, Token};
use slab::Slab;

use super::busy_poll::BusyPoll;
use super::events::Events;
use super::io::{Change, Slots};
use crate::statistics::set_worker;

/// The token of [`Home::alarm`].
const ALARM: Token = Token(usize::MAX);
/// How long to wait after the system could not say what has happened.
const AFTER_ERROR: Duration = Duration::from_millis(5);

type Work = Box<dyn FnOnce() + Send>;
type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Reads, writes and accepts of one task before the others have their turn.
const BUDGET: u32 = 64;

/// How the world reaches one worker.
pub(super) struct Home {
    /// What other threads want of it; `None` when it has ended.
    injected: Mutex<Option<Vec<Injected>>>,
    /// Interrupts its wait.
    alarm: mio::Waker,
    pub(super) registry: Registry,
    /// Sockets that came and went since it last looked.
    changes: Mutex<Changes>,
    changed: AtomicBool,
    ending: AtomicU8,
}

/// What [`Home::end`] leaves to the tasks.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Ending {
    /// A moment to end by themselves.
    Grace = 1,
    /// Nothing: what had to end has ended.
    Now = 2,
}

enum Injected {
    /// A task can go on.
    Task(usize),
    Work(Work),
}

#[derive(Default)]
struct Changes {
    list: Vec<Change>,
    /// Tokens that were used before, and the first that was not.
    free: Vec<usize>,
    next: usize,
    /// Whether the worker has ended.
    gone: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Home {
    pub(super) fn new(poll: &mio::Poll) -> std::io::Result<Self> {
        Ok(Self {
            injected: Mutex::new(Some(Vec::new())),
            alarm: mio::Waker::new(poll.registry(), ALARM)?,
            registry: poll.registry().try_clone()?,
            changes: Mutex::default(),
            changed: AtomicBool::new(false),
            ending: AtomicU8::new(0),
        })
    }

    /// Runs `work` on the worker's thread, unless that has ended.
    pub(super) fn run(&self, work: Work) {
        self.inject(Injected::Work(work));
    }

    /// Whether this thread is the worker's.
    pub(super) fn is_here(&self) -> bool {
        let at = std::ptr::from_ref(self).addr();
        HERE.try_with(|here| here.at.get() == at).unwrap_or(false)
    }

    fn inject(&self, injected: Injected) {
        let mut all = lock(&self.injected);
        let Some(list) = &mut *all else {
            // too late; not under the lock, since it may drop what is the user's
            drop(all);
            drop(injected);
            return;
        };
        list.push(injected);
        let is_first = list.len() == 1;
        drop(all);
        if is_first {
            self.sound();
        }
    }

    /// What was injected since the last call.
    fn injected(&self) -> Vec<Injected> {
        lock(&self.injected)
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    fn has_injected(&self) -> bool {
        lock(&self.injected)
            .as_ref()
            .is_some_and(|list| !list.is_empty())
    }

    fn sound(&self) {
        if let Err(error) = self.alarm.wake() {
            tracing::warn!(%error, "a worker cannot be woken");
        }
    }

    /// Lets the worker end.
    pub(super) fn end(&self, how: Ending) {
        self.ending.fetch_max(how as u8, Ordering::AcqRel);
        self.sound();
    }

    /// After the worker's end: nobody waits for it any more.
    fn set_gone(&self, slots: &mut Slots) {
        let late = lock(&self.injected).take();
        late.into_iter().flatten().for_each(discard);
        let mut changes = lock(&self.changes);
        changes.gone = true;
        let Changes { list, free, .. } = &mut *changes;
        list.drain(..).for_each(|change| slots.apply(change, free));
        drop(changes);
        slots.set_gone();
    }

    /// A token for a socket that comes; `change` makes what the worker is to know of it.
    pub(super) fn add(&self, change: impl FnOnce(usize) -> Change) -> Token {
        let mut changes = lock(&self.changes);
        let token = changes.free.pop().unwrap_or_else(|| {
            changes.next += 1;
            changes.next - 1
        });
        let change = change(token);
        if changes.gone {
            change.set_gone();
            return Token(token);
        }
        changes.list.push(change);
        self.changed.store(true, Ordering::Release);
        Token(token)
    }

    /// A socket has gone.
    pub(super) fn remove(&self, token: Token) {
        let mut changes = lock(&self.changes);
        if changes.gone {
            return;
        }
        changes.list.push(Change::Gone(token.0));
        self.changed.store(true, Ordering::Release);
    }

    /// Does what has changed since. A token is free again only now, so that an event that was on
    /// its way finds nobody else.
    fn apply_changes(&self, slots: &mut Slots) {
        if self.changed.load(Ordering::Acquire) {
            let mut changes = lock(&self.changes);
            self.changed.store(false, Ordering::Relaxed);
            let Changes { list, free, .. } = &mut *changes;
            list.drain(..).for_each(|change| slots.apply(change, free));
        }
    }
}

/// What a worker's thread knows of itself.
struct Here {
    /// Where its [`Home`] lies; 0 on other threads.
    at: Cell<usize>,
    home: RefCell<Option<Arc<Home>>>,
    /// The tasks that can go on, in the order in which they were woken.
    ready: RefCell<VecDeque<usize>>,
    /// A task that is being polled is not in its place.
    tasks: RefCell<Slab<Option<Task>>>,
    /// What the task that is being polled has left of its [`BUDGET`].
    budget: Cell<u32>,
}

thread_local! {
    static HERE: Here = const {
        Here {
            at: Cell::new(0),
            home: RefCell::new(None),
            ready: RefCell::new(VecDeque::new()),
            tasks: RefCell::new(Slab::new()),
            budget: Cell::new(0),
        }
    };
}

struct Task {
    future: TaskFuture,
    wakeup: Arc<Wakeup>,
    waker: Waker,
}

/// Wakes one task.
struct Wakeup {
    key: usize,
    /// Whether the worker's own thread has put it among the ready ones. Nobody else touches this.
    ///
    /// One that has ended may still be woken, and with it the one that has its place then, to which
    /// that does no harm; nor does it to be among the ready ones twice.
    here: AtomicBool,
    /// Whether another thread has.
    elsewhere: AtomicBool,
    home: Arc<Home>,
}

impl Wakeup {
    /// The task is about to see everything that was done before it was woken.
    #[inline]
    fn set_running(&self) {
        self.here.store(false, Ordering::Relaxed);
        // who has set this has injected the task, and the look at that shows it; so it is seen at
        // the latest when that has brought the task here
        if self.elsewhere.load(Ordering::Relaxed) {
            self.elsewhere.swap(false, Ordering::AcqRel);
        }
    }
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let at = Arc::as_ptr(&self.home).addr();
        let here = HERE.try_with(|here| {
            here.at.get() == at && {
                if !self.here.load(Ordering::Relaxed) {
                    self.here.store(true, Ordering::Relaxed);
                    here.ready.borrow_mut().push_back(self.key);
                }
                true
            }
        });
        // a swap also when it is set: the task sees what was done before this
        if here != Ok(true) && !self.elsewhere.swap(true, Ordering::AcqRel) {
            self.home.inject(Injected::Task(self.key));
        }
    }
}

/// Whether this thread is a worker.
pub(super) fn is_here() -> bool {
    HERE.try_with(|here| here.at.get() != 0).unwrap_or(false)
}

/// Counts an operation of the task that this worker polls; `false` when others have their turn
/// first. Elsewhere nothing is counted.
#[inline]
pub(super) fn spend() -> bool {
    HERE.try_with(|here| {
        let left = here.budget.get();
        here.budget.set(left.saturating_sub(1));
        left > 0 || here.at.get() == 0
    })
    .unwrap_or(true)
}

/// The worker whose thread this is.
pub(super) fn home() -> Option<Arc<Home>> {
    HERE.try_with(|here| here.home.borrow().clone()).ok()?
}

/// A task of a worker.
pub(crate) struct Spawned(Arc<Wakeup>);

impl Spawned {
    pub(super) fn abort(&self) {
        let wakeup = self.0.clone();
        let same = move |task: &Task| Arc::ptr_eq(&task.wakeup, &wakeup);
        let key = self.0.key;
        self.0.home.run(Box::new(move || {
            let task = HERE.with(|here| {
                let mut tasks = here.tasks.borrow_mut();
                let is_left = matches!(tasks.get(key), Some(Some(task)) if same(task));
                is_left.then(|| tasks.remove(key))
            });
            drop(task);
        }));
    }
}

/// Starts a task on this worker, whose home is `home`.
pub(super) fn spawn(home: Arc<Home>, future: TaskFuture) -> Spawned {
    HERE.with(|here| {
        let mut tasks = here.tasks.borrow_mut();
        let place = tasks.vacant_entry();
        let wakeup = Arc::new(Wakeup {
            key: place.key(),
            here: AtomicBool::new(true),
            elsewhere: AtomicBool::new(false),
            home,
        });
        here.ready.borrow_mut().push_back(place.key());
        place.insert(Some(Task {
            future,
            waker: wakeup.clone().into(),
            wakeup: wakeup.clone(),
        }));
        Spawned(wakeup)
    })
}

impl Here {
    /// Polls everything that can go on now; what is woken meanwhile has its turn after the next
    /// look at the sockets.
    fn run_ready(&self) {
        let turn = self.ready.borrow().len();
        for _ in 0..turn {
            let key = self.ready.borrow_mut().pop_front();
            if let Some(key) = key {
                self.run_task(key);
            }
        }
    }

    fn run_task(&self, key: usize) {
        let task = self.tasks.borrow_mut().get_mut(key).and_then(Option::take);
        let Some(mut task) = task else { return };
        task.wakeup.set_running();
        self.budget.set(BUDGET);
        let mut cx = Context::from_waker(&task.waker);
        let poll = || task.future.as_mut().poll(&mut cx);
        let result = catch_unwind(AssertUnwindSafe(poll));
        if matches!(result, Ok(Poll::Pending)) {
            if let Some(place) = self.tasks.borrow_mut().get_mut(key) {
                *place = Some(task);
            }
            return;
        }
        if result.is_err() {
            tracing::error!("a task of a worker has panicked");
        }
        drop(self.tasks.borrow_mut().try_remove(key));
        discard(task);
    }

    fn drain(&self, home: &Home) {
        // not under the lock: works inject others
        let all = home.injected();
        for injected in all {
            match injected {
                Injected::Task(key) => self.ready.borrow_mut().push_back(key),
                Injected::Work(work) => {
                    if catch_unwind(AssertUnwindSafe(work)).is_err() {
                        tracing::error!("the start of a task on a worker has panicked");
                    }
                }
            }
        }
    }

    /// Drops the tasks that are left, which may wake and spawn others.
    fn clear(&self) {
        loop {
            let left = std::mem::take(&mut *self.tasks.borrow_mut());
            if left.is_empty() {
                return;
            }
            left.into_iter()
                .filter_map(|(_, task)| task)
                .for_each(discard);
        }
    }
}

/// Drops a task or what would have become one, whose destructors may panic.
fn discard<T>(task: T) {
    if catch_unwind(AssertUnwindSafe(|| drop(task))).is_err() {
        tracing::error!("a task of a worker has panicked at its end");
    }
}

/// The life of the worker's thread numbered `n`. When it is to end, its tasks have `grace` to end first.
pub(super) fn run(home: Arc<Home>, poll: mio::Poll, busy: BusyPoll, grace: Duration, n: usize) {
    set_worker(n);
    HERE.with(|here| {
        here.at.set(Arc::as_ptr(&home).addr());
        *here.home.borrow_mut() = Some(home.clone());
        let mut slots = Slots::default();
        serve(here, &home, poll, busy, &mut slots, grace);
        here.clear();
        home.set_gone(&mut slots);
        *here.home.borrow_mut() = None;
        here.at.set(0);
    });
}

fn serve(
    here: &Here,
    home: &Home,
    mut poll: mio::Poll,
    mut busy: BusyPoll,
    slots: &mut Slots,
    grace: Duration,
) {
    let mut events = Events::new();
    let mut until: Option<Instant> = None;
    loop {
        here.run_ready();
        let mut wait = None;
        let ending = home.ending.load(Ordering::Acquire);
        if ending == Ending::Now as u8 {
            return;
        }
        if ending == Ending::Grace as u8 {
            let until = *until.get_or_insert_with(|| Instant::now() + grace);
            let left = until.saturating_duration_since(Instant::now());
            let idle = here.tasks.borrow().is_empty() && !home.has_injected();
            if idle || left.is_zero() {
                return;
            }
            wait = Some(left);
        }
        if !here.ready.borrow().is_empty() {
            wait = Some(Duration::ZERO);
        }
        let found = match wait {
            None => busy.find(&mut poll, &mut events),
            Some(_) => Ok(false),
        };
        let waited = match found {
            Ok(false) => events.wait(&mut poll, wait),
            found => found.map(drop),
        };
        if let Err(error) = waited {
            if error.kind() != std::io::ErrorKind::Interrupted {
                tracing::error!(%error, "a worker cannot wait for events");
                std::thread::sleep(AFTER_ERROR);
            }
            continue;
        }
        home.apply_changes(slots);
        for (token, happened) in events.iter() {
            if token == ALARM {
                here.drain(home);
            } else {
                slots.happened(token, happened);
            }
        }
    }
}
