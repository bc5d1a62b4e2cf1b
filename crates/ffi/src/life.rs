//! What can be started and stopped, again and again, from any thread.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use network_system::Result;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The settings, and what runs with them.
pub(crate) struct Life<S, R> {
    /// Held by starts and stops from beginning to end; never by a call that a callback may make.
    settings: Mutex<S>,
    running: Mutex<Option<Arc<R>>>,
    stopped: Condvar,
}

impl<S, R> Life<S, R> {
    pub(crate) fn new(settings: S) -> Self {
        Self {
            settings: Mutex::new(settings),
            running: Mutex::new(None),
            stopped: Condvar::new(),
        }
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut S)) {
        change(&mut locked(&self.settings));
    }

    pub(crate) fn running(&self) -> Option<Arc<R>> {
        locked(&self.running).clone()
    }

    /// `false` when it runs already.
    pub(crate) fn start(&self, start: impl FnOnce(&S) -> Result<R>) -> Result<bool> {
        let settings = locked(&self.settings);
        if self.running().is_some() {
            return Ok(false);
        }
        let running = start(&settings)?;
        *locked(&self.running) = Some(Arc::new(running));
        Ok(true)
    }

    /// `false` when it does not run. `begin` makes calls that still use it come back; they have
    /// 5 s, then it is dropped with the last of them.
    pub(crate) fn stop(&self, begin: impl FnOnce(&R), end: impl FnOnce(R)) -> bool {
        let _one_at_a_time = locked(&self.settings);
        let Some(mut running) = locked(&self.running).take() else {
            return false;
        };
        begin(&running);
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            match Arc::try_unwrap(running) {
                Ok(alone) => break end(alone),
                Err(_) if Instant::now() > until => break,
                Err(shared) => running = shared,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.stopped.notify_all();
        true
    }

    /// Waits until it is stopped; returns at once when it does not run.
    pub(crate) fn wait(&self) {
        let running = locked(&self.running);
        let ended = self
            .stopped
            .wait_while(running, |running| running.is_some());
        drop(ended.unwrap_or_else(PoisonError::into_inner));
    }
}
