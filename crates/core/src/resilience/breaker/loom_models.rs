//! Every interleaving of callers that probe a circuit breaker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use loom::thread;

use super::*;

fn probes(probes: u32) -> BreakerConfig {
    BreakerConfig {
        probes,
        ..BreakerConfig::default()
    }
}

/// An open one whose time is over.
fn over(now: Instant) -> Arc<Mutex<Core>> {
    let mut core = Core::new(now);
    core.enter(BreakerState::Open);
    core.statistics.opened = 1;
    Arc::new(Mutex::new(core))
}

/// One caller: asks, and tells how it went.
fn call(
    core: &Arc<Mutex<Core>>,
    config: &BreakerConfig,
    now: Instant,
    good: Option<bool>,
) -> thread::JoinHandle<bool> {
    let (core, config) = (core.clone(), config.clone());
    thread::spawn(move || {
        let admitted = lock(&core).admit(&config, now);
        let Ok(phase) = admitted else { return false };
        thread::yield_now();
        lock(&core).ended(&config, phase, good, now);
        true
    })
}

#[test]
fn loom_never_more_probes_than_allowed() {
    loom::model(|| {
        let (config, now) = (probes(1), Instant::now());
        let core = over(now);
        let at_once = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let (core, at_once, config) = (core.clone(), at_once.clone(), config.clone());
                thread::spawn(move || {
                    let admitted = lock(&core).admit(&config, now);
                    let Ok(phase) = admitted else { return };
                    let others = at_once.fetch_add(1, SeqCst);
                    assert_eq!(others, 0);
                    at_once.fetch_sub(1, SeqCst);
                    // cancelled: the state stays, the place is free again
                    lock(&core).ended(&config, phase, None, now);
                })
            })
            .collect();
        callers
            .into_iter()
            .for_each(|caller| caller.join().unwrap());
        let core = lock(&core);
        assert_eq!((core.probing, core.state), (0, BreakerState::HalfOpen));
    });
}

/// Three callers, two places: it closes with the second success and not before, whoever comes when.
#[test]
fn loom_as_many_successes_as_it_needs_close_it() {
    loom::model(|| {
        let (config, now) = (probes(2), Instant::now());
        let core = over(now);
        let callers = [(); 3].map(|()| call(&core, &config, now, Some(true)));
        let made = callers.map(|caller| caller.join().unwrap());
        let made = made.iter().filter(|made| **made).count();
        let core = lock(&core);
        // the third one was refused, or came when it was closed
        assert!(made == 2 || made == 3, "{made}");
        assert_eq!(core.state, BreakerState::Closed);
        assert_eq!((core.phase, core.statistics.opened), (3, 1), "no detour");
        assert_eq!(core.statistics.refused, 3 - made as u64);
    });
}

/// A probe that fails opens it for good, whatever the other one finds, and only once.
#[test]
fn loom_a_failed_probe_opens_it_whatever_the_others_find() {
    loom::model(|| {
        let (mut config, now) = (probes(2), Instant::now());
        config.open_for = Duration::from_secs(9);
        let core = over(now);
        // let in before, one with a failure that is nobody's concern any more
        let good = lock(&core).admit(&config, now).unwrap();
        let bad = call(&core, &config, now, Some(false));
        let stale = {
            let (core, config) = (core.clone(), config.clone());
            thread::spawn(move || lock(&core).ended(&config, 0, Some(false), now))
        };
        lock(&core).ended(&config, good, Some(true), now);
        assert!(bad.join().unwrap(), "there was a place for it");
        stale.join().unwrap();
        let core = lock(&core);
        assert_eq!(core.state, BreakerState::Open);
        assert_eq!((core.phase, core.statistics.opened), (3, 2));
        assert!(core.until > now);
    });
}

/// A connection that proves itself while a call comes: half open and closed in either order, and no
/// place stays taken.
#[test]
fn loom_what_is_seen_beside_calls_takes_no_place() {
    loom::model(|| {
        let (mut config, now) = (probes(2), Instant::now());
        config.open_for = Duration::from_secs(9);
        let core = over(now);
        // not yet over
        lock(&core).until = now + config.open_for;
        let call = call(&core, &config, now, Some(true));
        lock(&core).seen(&config, true, false, now);
        let made = call.join().unwrap();
        let core = lock(&core);
        let state = if made {
            BreakerState::Closed
        } else {
            BreakerState::HalfOpen
        };
        assert_eq!((core.state, core.probing), (state, 0));
        assert_eq!(core.succeeded, u32::from(!made));
    });
}
