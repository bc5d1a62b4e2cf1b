//! Counts what is under way, and lets nothing more in once it is closed: [`Gate`].

use tokio::sync::Notify;

use crate::sync::{AtomicUsize, Ordering};

/// The bit that says that it is closed; those above it count.
const CLOSED: usize = 1;
const ONE: usize = 2;

/// Whether one may still come in, and how many are inside: one number, so that nobody comes in who
/// was not counted.
pub(super) struct Gate {
    state: AtomicUsize,
    emptied: Notify,
}

/// One that is inside, until it is dropped.
pub(super) struct Pass<'a>(&'a Gate);

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            state: AtomicUsize::new(0),
            emptied: Notify::new(),
        }
    }

    /// Comes in, unless it is closed.
    pub(super) fn enter(&self) -> Option<Pass<'_>> {
        let enter = |state: usize| (state & CLOSED == 0).then(|| state + ONE);
        let entered = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, enter);
        entered.ok().map(|_| Pass(self))
    }

    /// How many are inside.
    pub(super) fn inside(&self) -> usize {
        self.state.load(Ordering::Acquire) / ONE
    }

    /// Nobody comes in from now on.
    pub(super) fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Waits until it is closed and nobody is inside.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // before the look, or one that leaves after it would not be heard
            emptied.as_mut().enable();
            if self.state.load(Ordering::Acquire) == CLOSED {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let before = self.0.state.fetch_sub(ONE, Ordering::AcqRel);
        if before == CLOSED + ONE {
            self.0.emptied.notify_waiters();
        }
    }
}

#[cfg(all(test, network_system_loom))]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may
mod loom_models {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicBool;
    use loom::thread;

    use super::*;

    #[test]
    fn loom_nobody_is_inside_of_an_emptied_gate() {
        loom::model(|| {
            let gate = Arc::new(Gate::new());
            let empty = Arc::new(AtomicBool::new(false));
            let guests: Vec<_> = (0..2)
                .map(|_| {
                    let (gate, empty) = (gate.clone(), empty.clone());
                    thread::spawn(move || {
                        if let Some(_pass) = gate.enter() {
                            assert!(!empty.load(Ordering::SeqCst), "came in behind the end");
                        }
                    })
                })
                .collect();
            gate.close();
            assert!(gate.enter().is_none());
            if gate.state.load(Ordering::Acquire) == CLOSED {
                empty.store(true, Ordering::SeqCst);
            }
            guests.into_iter().for_each(|guest| guest.join().unwrap());
            assert_eq!(gate.inside(), 0);
        });
    }
}
