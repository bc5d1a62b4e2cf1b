//! A pool of rayon as the pool of handlers: [`RayonPool`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use network_system_core::threads::{Task, ThreadPool, ThreadPoolStatistics, after};
use network_system_core::{Error, ErrorKind, Result};

/// Tasks that wait at most.
const QUEUE: u64 = 65_536;

/// A [`rayon::ThreadPool`] that handlers and network-system's delayed tasks run on, beside all else
/// that the application does with it. At most 65 536 tasks from here wait.
///
/// ```
/// use network_system_core::threads;
/// use network_system_integrations::rayon::RayonPool;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = RayonPool::new(rayon::ThreadPoolBuilder::new().num_threads(2).build()?);
/// assert_eq!(threads::run(&pool, || 6 * 7).await?, 42);
/// # Ok(())
/// # }
/// ```
pub struct RayonPool(Arc<Inner>);

struct Inner {
    pool: rayon::ThreadPool,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    queued: AtomicU64,
    running: AtomicU64,
    delayed: AtomicU64,
    completed: AtomicU64,
    panicked: AtomicU64,
    refused: AtomicU64,
}

impl RayonPool {
    /// Takes the pool over; it ends with the last piece of work.
    #[must_use]
    pub fn new(pool: rayon::ThreadPool) -> Self {
        let counts = Counts::default();
        Self(Arc::new(Inner { pool, counts }))
    }

    /// The pool, for other work.
    #[must_use]
    pub fn get_ref(&self) -> &rayon::ThreadPool {
        &self.0.pool
    }
}

impl Inner {
    fn put(self: &Arc<Self>, task: Task) -> Result<()> {
        let counts = &self.counts;
        let more = |queued| (queued < QUEUE).then_some(queued + 1);
        if counts.queued.try_update(Relaxed, Relaxed, more).is_err() {
            counts.refused.fetch_add(1, Relaxed);
            return Err(
                Error::new(ErrorKind::QueueFull, "give work to a pool of rayon")
                    .because(format!("{QUEUE} tasks wait for a thread already"))
                    .advice("use more threads, or send less"),
            );
        }
        // what waits does not keep a pool alive that nobody has any more
        let inner = Arc::downgrade(self);
        self.pool.spawn(move || run(&inner, task));
        Ok(())
    }
}

fn run(inner: &Weak<Inner>, task: Task) {
    let count = |of: fn(&Counts) -> &AtomicU64, by: u64| {
        if let Some(inner) = inner.upgrade() {
            of(&inner.counts).fetch_add(by, Relaxed);
        }
    };
    count(|counts| &counts.queued, u64::MAX);
    count(|counts| &counts.running, 1);
    let panicked = catch_unwind(AssertUnwindSafe(task)).is_err();
    if panicked {
        tracing::error!("a task of a thread pool has panicked");
    }
    count(|counts| &counts.running, u64::MAX);
    count(|counts| &counts.completed, 1);
    count(|counts| &counts.panicked, u64::from(panicked));
}

impl ThreadPool for RayonPool {
    fn execute(&self, task: Task) -> Result<()> {
        self.0.put(task)
    }

    fn execute_after(&self, delay: Duration, task: Task) -> Result<()> {
        let inner = Arc::downgrade(&self.0);
        self.0.counts.delayed.fetch_add(1, Relaxed);
        let waiting = after(
            delay,
            Box::new(move || {
                let Some(inner) = inner.upgrade() else { return };
                inner.counts.delayed.fetch_sub(1, Relaxed);
                if let Err(error) = inner.put(task) {
                    tracing::warn!(%error, "a delayed task is dropped");
                }
            }),
        );
        if waiting.is_err() {
            self.0.counts.delayed.fetch_sub(1, Relaxed);
        }
        waiting
    }

    fn statistics(&self) -> ThreadPoolStatistics {
        let counts = &self.0.counts;
        let mut statistics = ThreadPoolStatistics::default();
        statistics.threads = self.0.pool.current_num_threads() as u64;
        statistics.running = counts.running.load(Relaxed);
        statistics.queued = counts.queued.load(Relaxed);
        statistics.delayed = counts.delayed.load(Relaxed);
        statistics.completed = counts.completed.load(Relaxed);
        statistics.panicked = counts.panicked.load(Relaxed);
        statistics.refused = counts.refused.load(Relaxed);
        statistics
    }
}
