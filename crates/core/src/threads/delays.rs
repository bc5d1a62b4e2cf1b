//! One thread for the whole process that waits for the time of delayed tasks, so that no thread of a
//! pool has to: [`after`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::contain::contain;
use crate::error::{Error, Result};
use crate::threads::Task;

static WAITING: Mutex<Waiting> = Mutex::new(Waiting {
    tasks: BinaryHeap::new(),
    next: 0,
    running: false,
});
static EARLIER: Condvar = Condvar::new();

struct Waiting {
    tasks: BinaryHeap<Reverse<Delayed>>,
    /// The number of the next one: those of the same moment keep their order.
    next: u64,
    /// Whether there is a thread.
    running: bool,
}

struct Delayed {
    at: Instant,
    number: u64,
    task: Task,
}

impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Delayed {}

fn lock() -> MutexGuard<'static, Waiting> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `task` when `delay` has passed, on a thread that all delayed tasks of the process share: it
/// should do no more than give work to a pool, as [`ThreadPool::execute_after`] of a pool without
/// delays of its own does with it. The thread is there while something waits.
///
/// [`ThreadPool::execute_after`]: crate::threads::ThreadPool::execute_after
///
/// # Errors
/// The system gives no more threads.
pub fn after(delay: Duration, task: Task) -> Result<()> {
    let now = Instant::now();
    // what is further away than the clock can tell waits for ever
    let far = Duration::from_secs(100 * 365 * 24 * 3600);
    let at = now.checked_add(delay.min(far)).unwrap_or(now);
    let mut waiting = lock();
    if !waiting.running {
        let thread = std::thread::Builder::new().name("network-system-delays".into());
        thread
            .spawn(serve)
            .map_err(|error| Error::from_io("start the thread of delayed tasks", error))?;
        waiting.running = true;
    }
    let number = waiting.next;
    waiting.next += 1;
    waiting.tasks.push(Reverse(Delayed { at, number, task }));
    drop(waiting);
    EARLIER.notify_one();
    Ok(())
}

fn serve() {
    let mut waiting = lock();
    loop {
        let now = Instant::now();
        let Some(Reverse(first)) = waiting.tasks.peek() else {
            waiting.running = false;
            return;
        };
        let left = first.at.saturating_duration_since(now);
        if !left.is_zero() {
            let woken = EARLIER.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        if let Some(Reverse(due)) = waiting.tasks.pop() {
            drop(waiting);
            contain(due.task);
            waiting = lock();
        }
    }
}
