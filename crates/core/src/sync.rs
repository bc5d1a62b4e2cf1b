//! The synchronisation primitives of the concurrent parts: the standard library's, or loom's under
//! `--cfg network_system_loom`, so that loom can explore every interleaving.

#[cfg(network_system_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
#[cfg(not(network_system_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Locks `mutex`; a panic of another holder does not spread: the data under our locks is valid
/// between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
