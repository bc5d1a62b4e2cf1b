//! Pools of threads for work that would keep a connection's own thread for too long: [`ThreadPool`],
//! [`Threads`], and [`OnPool`], which takes a whole handler there.

mod delays;
mod fixed;
mod on_pool;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};
pub use delays::after;
pub use fixed::Threads;
pub use on_pool::OnPool;

/// A piece of work for a pool.
pub type Task = Box<dyn FnOnce() + Send>;

/// Threads that do work which is not input or output: built in as [`Threads`], and whatever an
/// application has already.
///
/// A task that panics ends only itself.
pub trait ThreadPool: Send + Sync + 'static {
    /// Lets a thread of the pool do `task`, in the order of the calls where it has one thread. Never
    /// waits.
    ///
    /// # Errors
    /// [`ErrorKind::QueueFull`] when too many tasks wait, [`ErrorKind::NotInitialized`] when the pool has
    /// stopped. The task is dropped then.
    fn execute(&self, task: Task) -> Result<()>;

    /// As [`execute`](Self::execute), but not before `delay` has passed. No thread of the pool
    /// sleeps for it. One whose turn comes when the pool has stopped, or is full, is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::NotInitialized`] when the pool has stopped.
    fn execute_after(&self, delay: Duration, task: Task) -> Result<()>;

    /// What the pool has done so far.
    fn statistics(&self) -> ThreadPoolStatistics;
}

/// What a pool of threads has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ThreadPoolStatistics {
    /// Its threads; 0 when it has stopped.
    pub threads: u64,
    /// Tasks that run now.
    pub running: u64,
    /// Tasks that wait for a thread.
    pub queued: u64,
    /// Tasks whose time has not come.
    pub delayed: u64,
    /// Tasks that have ended, panics included.
    pub completed: u64,
    /// Tasks that have panicked.
    pub panicked: u64,
    /// Tasks that were not taken, because the pool was full or had stopped.
    pub refused: u64,
}

impl<P: ThreadPool + ?Sized> ThreadPool for Arc<P> {
    fn execute(&self, task: Task) -> Result<()> {
        (**self).execute(task)
    }

    fn execute_after(&self, delay: Duration, task: Task) -> Result<()> {
        (**self).execute_after(delay, task)
    }

    fn statistics(&self) -> ThreadPoolStatistics {
        (**self).statistics()
    }
}

/// Does `work` on a thread of the pool and gives back what it returns. Dropping the future does not
/// stop work that has begun.
///
/// ```
/// # use network_system_core as network_system;
/// use network_system::threads::{self, Threads};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> network_system::Result<()> {
/// let pool = Threads::new(2)?;
/// let sum: u64 = threads::run(&pool, || (1..=1000).sum()).await?;
/// assert_eq!(sum, 500_500);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`ThreadPool::execute`]; [`ErrorKind::Internal`] when the work has panicked, or when the pool
/// has stopped before its turn came.
pub async fn run<T: Send + 'static>(
    pool: &(impl ThreadPool + ?Sized),
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (done, result) = oneshot::channel();
    pool.execute(Box::new(move || {
        let _ = done.send(work());
    }))?;
    result.await.map_err(|_| {
        Error::new(ErrorKind::Internal, "do work on a thread pool")
            .because("the work has panicked, or the pool has stopped before its turn came")
    })
}

/// The error of a pool that takes nothing any more.
#[cold]
pub(crate) fn stopped() -> Error {
    Error::new(ErrorKind::NotInitialized, "give work to a thread pool")
        .because("the pool has stopped")
        .advice("stop the pool after the servers and clients that use it")
}
