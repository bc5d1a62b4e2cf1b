//! Keeps worker threads on cores of their own.

/// Keeps this thread on one of the cores that it may run on: the one whose turn it is when they are
/// dealt out to the workers by their numbers `n`.
#[cfg(target_os = "linux")]
pub(super) fn to_core(n: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let pinned = sched_getaffinity(None).and_then(|allowed| {
        let cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let Some(core) = cores.clone().nth(n % cores.count().max(1)) else {
            return Ok(());
        };
        let mut only = CpuSet::new();
        only.set(core);
        sched_setaffinity(None, &only)
    });
    if let Err(error) = pinned {
        tracing::warn!(worker = n, %error, "a worker cannot be pinned to a core");
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn to_core(n: usize) {
    tracing::warn!(worker = n, "workers can be pinned to cores on Linux only");
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::thread::sched_getaffinity;

    #[test]
    fn workers_have_the_cores_in_turn() {
        let allowed = sched_getaffinity(None).unwrap().count() as usize;
        let core = |n: usize| {
            let thread = std::thread::spawn(move || {
                to_core(n);
                sched_getaffinity(None).unwrap()
            });
            thread.join().unwrap()
        };
        for n in 0..=allowed {
            assert_eq!(core(n).count(), 1);
            assert!(core(n) == core(n + allowed));
            assert_eq!(core(n) == core(n + 1), allowed == 1);
        }
    }
}
