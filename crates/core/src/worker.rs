//! Threads with an event loop of their own, on which servers and clients run: [`Workers`].
//!
//! A worker polls its connections and waits for their sockets without a runtime in between, which
//! is a third of the instructions of a short message (measured). What else async code needs,
//! timers and tasks that handlers spawn, is served by a small tokio runtime in the background, whose
//! context every worker has.

mod busy_poll;
mod events;
mod executor;
mod io;
mod pin;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::task::AbortHandle;

use crate::config::WorkerConfig;
use crate::error::{Error, ErrorKind, Result};
use busy_poll::BusyPoll;
use executor::{Ending, Home};
pub use io::{Io, Stream};

/// How long a worker that is to end waits for its tasks, which were told before; only a handler
/// that does not come back needs longer.
const GRACE: Duration = Duration::from_secs(1);

/// Threads that serve connections, each with an event loop of its own. A connection stays on its
/// thread.
///
/// [`ServerBuilder::workers`](crate::ServerBuilder::workers) makes some for a server;
/// [`ClientBuilder::workers`](crate::ClientBuilder::workers) puts clients on them. Every clone means
/// the same threads. They end when the last clone is gone, of which servers and clients have one each:
/// their connections are told, and have a second to end.
///
/// A handler on a worker is an ordinary async function: tokio's timers work in it, and what it
/// spawns runs on a thread of its own. It must not block, or the other connections of its thread
/// wait.
#[derive(Clone)]
pub struct Workers(Arc<Inner>);

struct Inner {
    homes: Vec<Arc<Home>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    next: AtomicUsize,
    services: Arc<Services>,
}

/// The runtime for timers and spawned tasks.
struct Services(Option<Runtime>);

impl Services {
    fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("netsys-services")
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| Error::from_io("start the workers' runtime", error));
        Ok(Self(Some(runtime?)))
    }

    fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // may run in async code, which must not wait
            runtime.shutdown_background();
        }
    }
}

impl Workers {
    /// Starts `n` threads, at least one.
    ///
    /// # Errors
    /// The system gives no more threads or file descriptors.
    pub fn new(n: usize) -> Result<Self> {
        Self::with_config(n, &WorkerConfig::default())
    }

    /// Starts `n` threads, at least one, that run as `config` says.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`ErrorKind::InvalidArgument`] for settings that make no sense.
    pub fn with_config(n: usize, config: &WorkerConfig) -> Result<Self> {
        config.validate(n.max(1), "worker.")?;
        let services = Arc::new(Services::new()?);
        let mut inner = Inner {
            homes: Vec::new(),
            threads: Mutex::default(),
            next: AtomicUsize::new(0),
            services,
        };
        for n in 0..n.max(1) {
            inner.start(n, config)?;
        }
        Ok(Self(Arc::new(inner)))
    }

    /// How many threads.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.homes.len()
    }

    /// The runtime that has the workers' timers.
    pub(crate) fn services(&self) -> Option<&Handle> {
        self.0.services.handle()
    }

    /// Runs `work` on the worker numbered `n`, from where it can [`spawn`].
    pub(crate) fn run_on(&self, n: usize, work: impl FnOnce() + Send + 'static) {
        if let Some(home) = self.0.homes.get(n % self.count()) {
            home.run(Box::new(work));
        }
    }

    /// Runs `work` on the worker whose turn it is.
    pub(crate) fn run_on_next(&self, work: impl FnOnce() + Send + 'static) {
        self.run_on(self.0.next.fetch_add(1, Relaxed), work);
    }

    /// Ends the threads, whose tasks that matter have ended, and returns them.
    pub(crate) fn end(&self) -> Vec<JoinHandle<()>> {
        self.0.end(Ending::Now);
        let mut threads = self
            .0
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        threads.drain(..).collect()
    }
}

impl Inner {
    fn start(&mut self, n: usize, config: &WorkerConfig) -> Result<()> {
        let failed = |error| Error::from_io("start a worker thread", error);
        let poll = mio::Poll::new().map_err(failed)?;
        let home = Arc::new(Home::new(&poll).map_err(failed)?);
        self.homes.push(home.clone());
        let services = self.services.clone();
        let WorkerConfig { busy_poll, pin } = *config;
        let thread = std::thread::Builder::new().name(format!("netsys-worker-{n}"));
        let thread = thread.spawn(move || {
            let _context = services.handle().map(Handle::enter);
            if pin {
                pin::to_core(n);
            }
            executor::run(home, poll, BusyPoll::new(busy_poll), GRACE, n);
        });
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.push(thread.map_err(failed)?);
        Ok(())
    }

    fn end(&self, how: Ending) {
        self.homes.iter().for_each(|home| home.end(how));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end(Ending::Grace);
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Workers").field(&self.count()).finish()
    }
}

/// Whether this thread is a worker.
#[must_use]
pub fn is_worker() -> bool {
    executor::is_here()
}

/// A task of the engine. It goes on when this is dropped.
pub(crate) enum Spawned {
    Worker(executor::Spawned),
    Runtime(AbortHandle),
}

impl Spawned {
    /// Gives the task up: it is dropped where it runs.
    pub(crate) fn abort(&self) {
        match self {
            Self::Worker(task) => task.abort(),
            Self::Runtime(task) => task.abort(),
        }
    }
}

/// Starts a task of the engine: on this worker, or in the current runtime.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Spawned {
    match executor::home() {
        Some(home) => Spawned::Worker(executor::spawn(home, Box::pin(future))),
        None => Spawned::Runtime(tokio::spawn(future).abort_handle()),
    }
}

/// Starts a task where this is called: on this worker, or in the current runtime. For what a transport
/// needs beside a link; it must end with that.
pub fn run(future: impl Future<Output = ()> + Send + 'static) {
    drop(spawn(future));
}

/// The error of a worker that has ended.
pub(crate) fn gone() -> Error {
    Error::new(ErrorKind::Internal, "start a task on a worker").because("its thread has ended")
}

#[cfg(test)]
mod tests;
