//! One thread for the whole process that looks once a second at connections which are too busy to
//! keep a timer: a runtime with a timer pays for it at every wait (measured: a tenth of a
//! round trip), and a busy connection moves its deadline with every message anyway.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::session::{Session, WeakSession};

/// How often it looks.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// What is watched, and whether the thread runs.
static WATCHED: Mutex<(Vec<Watched>, bool)> = Mutex::new((Vec::new(), false));

struct Watched {
    session: WeakSession,
    seen: Activity,
}

/// How much a connection has moved.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    /// Messages, either way.
    pub(crate) messages: u64,
    /// Bytes in, where a peer that says nothing must be asked.
    pub(crate) bytes: Option<u64>,
}

impl Activity {
    /// Whether something has moved since, of each sort that counts.
    fn since(self, before: Self) -> bool {
        self.messages != before.messages && (self.bytes.is_none() || self.bytes != before.bytes)
    }
}

fn lock() -> MutexGuard<'static, (Vec<Watched>, bool)> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches a session until it is quiet for a tick, and tells it then. `false` when that cannot be
/// done: it needs a timer of its own.
pub(crate) fn watch(session: &Session) -> bool {
    let (watched, running) = &mut *lock();
    if !*running {
        let thread = std::thread::Builder::new().name("network-system-ticker".into());
        *running = thread.spawn(run).is_ok();
    }
    if *running {
        watched.push(Watched {
            session: session.downgrade(),
            seen: session.activity(),
        });
    }
    *running
}

fn run() {
    loop {
        std::thread::sleep(TICK);
        let mut all = std::mem::take(&mut lock().0);
        all.retain_mut(|watched| match watched.session.upgrade() {
            None => false,
            Some(session) => {
                let now = session.activity();
                let moved = now.since(std::mem::replace(&mut watched.seen, now));
                // one that is too old sets its timer again as well, which tells it
                let busy = moved && session.expires().is_none_or(|at| Instant::now() < at);
                if !busy {
                    session.set_quiet();
                }
                busy
            }
        });
        let (watched, running) = &mut *lock();
        all.append(watched);
        *watched = all;
        if watched.is_empty() {
            *running = false;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_busy() {
        let at = |messages, bytes| Activity { messages, bytes };
        assert!(at(2, None).since(at(1, None)));
        assert!(!at(1, None).since(at(1, None)));
        assert!(at(2, Some(9)).since(at(1, Some(8))));
        // a peer that is only sent to is to be asked; one that drips bytes is idle
        assert!(!at(2, Some(8)).since(at(1, Some(8))));
        assert!(!at(1, Some(9)).since(at(1, Some(8))));
    }
}
