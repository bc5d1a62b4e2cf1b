//! The built-in pool: a fixed number of threads and one bounded queue, [`Threads`].

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Task, ThreadPool, ThreadPoolStatistics, after, stopped};
use crate::error::{Error, ErrorKind, Result};

/// Tasks that wait at most.
const QUEUE: usize = 65_536;

/// A fixed number of threads that take tasks from one queue, in order. At most 65 536 tasks wait
/// ([`queue`](Self::queue) changes that); what comes then is refused.
///
/// Dropping it does what has been queued, on its threads, without waiting for it; what is delayed
/// is dropped when its time comes.
pub struct Threads {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    /// Something was queued, or the pool has stopped.
    changed: Condvar,
    delayed: AtomicU64,
}

struct State {
    queue: VecDeque<Task>,
    most: usize,
    stopped: bool,
    counts: ThreadPoolStatistics,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, task: Task) -> Result<()> {
        let mut state = self.lock();
        if state.stopped {
            state.counts.refused += 1;
            return Err(stopped());
        }
        if state.queue.len() >= state.most {
            state.counts.refused += 1;
            return Err(full(state.most));
        }
        state.queue.push_back(task);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The life of one thread.
    fn serve(&self) {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.queue.pop_front() {
                state.counts.running += 1;
                drop(state);
                let panicked = catch_unwind(AssertUnwindSafe(task)).is_err();
                if panicked {
                    tracing::error!("a task of a thread pool has panicked");
                }
                state = self.lock();
                state.counts.running -= 1;
                state.counts.completed += 1;
                state.counts.panicked += u64::from(panicked);
            } else if state.stopped {
                state.counts.threads -= 1;
                return;
            } else {
                let woken = self.changed.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[cold]
fn full(most: usize) -> Error {
    Error::new(ErrorKind::QueueFull, "give work to a thread pool")
        .because(format!("{most} tasks wait for a thread already"))
        .advice("use more threads, or send less")
}

impl Threads {
    /// Starts `n` threads; 0 means one for each core.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn new(n: usize) -> Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(2, usize::from);
        let n = if n == 0 { cores() } else { n };
        let pool = Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    queue: VecDeque::new(),
                    most: QUEUE,
                    stopped: false,
                    counts: ThreadPoolStatistics::default(),
                }),
                changed: Condvar::new(),
                delayed: AtomicU64::new(0),
            }),
            threads: Mutex::default(),
        };
        for i in 0..n {
            let shared = pool.shared.clone();
            let thread = std::thread::Builder::new().name(format!("network-system-pool-{i}"));
            pool.shared.lock().counts.threads += 1;
            // where this fails, dropping the pool ends those that run
            let thread = thread
                .spawn(move || shared.serve())
                .map_err(|error| Error::from_io("start the threads of a pool", error))?;
            pool.handles().push(thread);
        }
        Ok(pool)
    }

    /// Lets `tasks` wait at most, at least one.
    #[must_use]
    pub fn queue(self, tasks: usize) -> Self {
        self.shared.lock().most = tasks.max(1);
        self
    }

    fn handles(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes nothing more, does what has been queued, and waits for that. Called on a thread of the
    /// pool it waits for the others only.
    pub fn stop(&self) {
        self.end();
        let threads = std::mem::take(&mut *self.handles());
        let me = std::thread::current().id();
        for thread in threads {
            if thread.thread().id() != me {
                // it catches the panics of tasks
                let _ = thread.join();
            }
        }
    }

    fn end(&self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end();
    }
}

impl ThreadPool for Threads {
    fn execute(&self, task: Task) -> Result<()> {
        self.shared.put(task)
    }

    fn execute_after(&self, delay: Duration, task: Task) -> Result<()> {
        if self.shared.lock().stopped {
            return Err(stopped());
        }
        let shared = Arc::downgrade(&self.shared);
        self.shared.delayed.fetch_add(1, Relaxed);
        let waiting = after(
            delay,
            Box::new(move || {
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                shared.delayed.fetch_sub(1, Relaxed);
                if let Err(error) = shared.put(task) {
                    tracing::warn!(%error, "a delayed task is dropped");
                }
            }),
        );
        if waiting.is_err() {
            self.shared.delayed.fetch_sub(1, Relaxed);
        }
        waiting
    }

    fn statistics(&self) -> ThreadPoolStatistics {
        let state = self.shared.lock();
        ThreadPoolStatistics {
            queued: state.queue.len() as u64,
            delayed: self.shared.delayed.load(Relaxed),
            ..state.counts
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn tasks_run_in_order_and_panics_end_only_themselves() {
        let pool = Threads::new(1).unwrap();
        let (done, results) = channel();
        pool.execute(Box::new(|| panic!("one task"))).unwrap();
        for i in 0..100 {
            let done = done.clone();
            pool.execute(Box::new(move || done.send(i).unwrap()))
                .unwrap();
        }
        drop(done);
        assert!(results.iter().eq(0..100));
        pool.stop();
        let end = pool.statistics();
        assert_eq!(
            (end.completed, end.panicked, end.running, end.threads),
            (101, 1, 0, 0)
        );
        let refused = pool.execute(Box::new(|| ())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotInitialized);
    }

    #[test]
    fn the_queue_is_bounded_and_what_is_in_it_is_done_at_the_end() {
        let pool = Threads::new(1).unwrap().queue(2);
        let (go, wait) = channel::<()>();
        let (begun, has_begun) = channel();
        let (done, results) = channel();
        pool.execute(Box::new(move || {
            begun.send(()).unwrap();
            wait.recv().unwrap();
        }))
        .unwrap();
        has_begun.recv().unwrap();
        for i in 0..2 {
            let done = done.clone();
            pool.execute(Box::new(move || done.send(i).unwrap()))
                .unwrap();
        }
        let full = pool.execute(Box::new(|| ())).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::QueueFull);
        let now = pool.statistics();
        assert_eq!((now.running, now.queued, now.refused), (1, 2, 1));
        go.send(()).unwrap();
        pool.stop();
        drop(done);
        assert_eq!(results.iter().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn delays_pass_in_order_without_a_thread_of_the_pool() {
        let pool = Threads::new(1).unwrap();
        let (done, results) = channel();
        for ms in [60, 20, 40] {
            let done = done.clone();
            let task = Box::new(move || done.send(ms).unwrap());
            pool.execute_after(Duration::from_millis(ms), task).unwrap();
        }
        // the only thread is free meanwhile
        let other = done.clone();
        pool.execute(Box::new(move || other.send(0).unwrap()))
            .unwrap();
        drop(done);
        assert_eq!(results.iter().collect::<Vec<_>>(), [0, 20, 40, 60]);
        assert_eq!(pool.statistics().delayed, 0);
        // for ever
        pool.execute_after(Duration::MAX, Box::new(|| ())).unwrap();
        assert_eq!(pool.statistics().delayed, 1);
    }
}
