//! The handshakes that go on at one time: how many there may be, and which has to make room for
//! another: [`HalfOpen`].

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// Of the time that a handshake may take it has this part for itself; then it has to make room when
/// others want to begin.
const OWN_PART: u32 = 4;

/// The handshakes of a server that go on.
///
/// When there are as many as there may be, the oldest ends if it has had its own part of the time, and
/// else the new one is refused. Were the new one always refused, a single address could keep everybody
/// out with handshakes that never come; did the oldest always end, none would come to its end when
/// everybody comes back at the same time.
pub(crate) struct HalfOpen {
    most: usize,
    own: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// By age.
    going_on: BTreeMap<u64, (Instant, oneshot::Sender<()>)>,
}

/// The place of one handshake, given up when dropped.
pub(crate) struct Place {
    all: Arc<HalfOpen>,
    number: u64,
    pushed_out: oneshot::Receiver<()>,
}

impl HalfOpen {
    /// At most `most` at a time, any number for 0, of which none may take longer than `timeout`.
    pub(crate) fn new(most: usize, timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            most: if most == 0 { usize::MAX } else { most },
            own: timeout / OWN_PART,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new one; `None` when there is none.
    pub(crate) fn enter(all: &Arc<Self>) -> Option<Place> {
        let now = Instant::now();
        let mut state = all.lock();
        if state.going_on.len() >= all.most {
            let oldest = state.going_on.first_entry()?;
            if now.saturating_duration_since(oldest.get().0) < all.own {
                return None;
            }
            let (_, push_out) = oldest.remove();
            // one that is done has no use for it
            let _ = push_out.send(());
        }
        let (push_out, pushed_out) = oneshot::channel();
        let number = state.next;
        state.next += 1;
        state.going_on.insert(number, (now, push_out));
        drop(state);
        Some(Place {
            all: all.clone(),
            number,
            pushed_out,
        })
    }
}

impl Place {
    /// Waits until it has to make room.
    pub(crate) async fn pushed_out(&mut self) {
        if (&mut self.pushed_out).await.is_err() {
            pending().await
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.lock().going_on.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room_when_it_has_had_its_time() {
        let all = HalfOpen::new(3, Duration::from_secs(8));
        let mut places: Vec<_> = (0..3).filter_map(|_| HalfOpen::enter(&all)).collect();
        tokio::time::advance(Duration::from_millis(1999)).await;
        assert!(HalfOpen::enter(&all).is_none(), "all are young");
        // one that is done makes room at any time
        drop(places.pop());
        let young = HalfOpen::enter(&all);
        assert!(young.is_some() && HalfOpen::enter(&all).is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        let newer = HalfOpen::enter(&all);
        assert!(newer.is_some());
        let [oldest, second] = &mut places[..] else {
            panic!("two are left")
        };
        oldest.pushed_out().await;
        let waits = tokio::time::timeout(Duration::ZERO, second.pushed_out()).await;
        assert!(waits.is_err(), "the second has its place");
        // the end of one that had to go makes no room
        drop(places.remove(0));
        let newest = HalfOpen::enter(&all);
        assert!(newest.is_some());
        places[0].pushed_out().await;
        assert!(HalfOpen::enter(&all).is_none());
        drop((young, newer, newest, places));
        assert!(all.lock().going_on.is_empty());
    }

    #[tokio::test]
    async fn without_a_limit_there_is_always_room() {
        let all = HalfOpen::new(0, Duration::from_secs(1));
        let places: Vec<_> = (0..10_000).filter_map(|_| HalfOpen::enter(&all)).collect();
        assert_eq!(places.len(), 10_000);
    }
}
