//! [`Spares`]: the buffers of one sort that a thread keeps for connections that will need one, no more of them
//! than were needed at once lately.
//!
//! A buffer is often given back on another thread than it came from: a task has moved, or one thread
//! sends what another one writes. Without a limit that follows the need, each thread would keep what such a
//! random walk has brought it.

use std::cell::{Cell, RefCell};
use std::time::Duration;

/// Bytes that a thread keeps of each sort at most, besides the buffer that was given back last: for
/// connections that wait in the middle of a batch, and for the many that a broadcast fills.
const MOST: usize = 4 * 1024 * 1024;
/// How often what was needed is looked at: what was not for so long, or twice as long at most, is
/// freed.
pub(super) const LATELY: Duration = Duration::from_secs(1);
/// Larger buffers are freed one by one, even where as many are needed: a few large reads or batches shall
/// not make all of them large for ever.
const LARGE: usize = 64 * 1024;

/// A buffer that spares are kept of.
pub(super) trait Spare: Default {
    /// Bytes of its memory; 0 where it has none.
    fn size(&self) -> usize;
}

/// The spare buffers of one sort. The one that was given back last is the next to be used, and
/// lies where it takes a few instructions to get it.
pub(super) struct Spares<B> {
    first: Cell<B>,
    /// What was given back last is at the end; what is not needed stays at the start.
    others: RefCell<Vec<B>>,
    /// Bytes of the others.
    held: Cell<usize>,
    /// How many have been taken and not given back since the last look, the first aside. Where more
    /// come back than were taken, it begins anew at 0.
    out: Cell<usize>,
    /// The most that these were since the last look, and from the one before to it.
    most: Cell<usize>,
    before: Cell<usize>,
}

impl<B: Spare> Spares<B> {
    pub(super) const fn new(none: B) -> Self {
        Self {
            first: Cell::new(none),
            others: RefCell::new(Vec::new()),
            held: Cell::new(0),
            out: Cell::new(0),
            most: Cell::new(0),
            before: Cell::new(0),
        }
    }

    /// A spare buffer, or one without memory.
    #[inline]
    pub(super) fn take(&self) -> B {
        let first = self.first.take();
        if first.size() > 0 {
            return first;
        }
        self.take_other()
    }

    #[inline(never)]
    fn take_other(&self) -> B {
        let out = self.out.get() + 1;
        self.out.set(out);
        self.most.set(self.most.get().max(out));
        let others = self.others.try_borrow_mut().ok();
        let other = others.and_then(|mut others| others.pop());
        let other = other.unwrap_or_default();
        self.held.set(self.held.get() - other.size());
        other
    }

    #[inline]
    pub(super) fn give(&self, buffer: B) {
        let before = self.first.replace(buffer);
        if before.size() > 0 {
            self.keep(before);
        }
    }

    #[inline(never)]
    fn keep(&self, buffer: B) {
        self.out.set(self.out.get().saturating_sub(1));
        let held = self.held.get() + buffer.size();
        let needed = self.most.get().max(self.before.get());
        if let Ok(mut others) = self.others.try_borrow_mut()
            && held <= MOST
            && others.len() < needed
        {
            self.held.set(held);
            others.push(buffer);
        }
    }

    /// Frees what was not needed since it was called last, and one of the large ones.
    #[cold]
    pub(super) fn trim(&self) {
        let needed = self.most.take();
        self.before.set(needed);
        self.out.set(0);
        let Ok(mut others) = self.others.try_borrow_mut() else {
            return;
        };
        let unneeded = others.len().saturating_sub(needed);
        others.drain(..unneeded);
        if let Some(large) = others.iter().position(|other| other.size() > LARGE) {
            others.remove(large);
        }
        others.shrink_to(2 * needed);
        self.held.set(others.iter().map(Spare::size).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer of so many bytes, with a number.
    #[derive(Default, Debug, PartialEq)]
    struct Sized(usize, u32);

    impl Spare for Sized {
        fn size(&self) -> usize {
            self.0
        }
    }

    impl<B: Spare> Spares<B> {
        pub(crate) fn held(&self) -> usize {
            let sizes = |others: &Vec<B>| others.iter().map(Spare::size).sum();
            let held = self.held.get();
            assert_eq!(held, sizes(&self.others.borrow()));
            held
        }
    }

    fn spares() -> Spares<Sized> {
        Spares::new(Sized(0, 0))
    }

    /// Takes `n` at once and gives them back with `size` bytes each.
    fn need(spares: &Spares<Sized>, n: u32, size: usize) {
        let taken: Vec<_> = (0..n).map(|_| spares.take()).collect();
        for (at, buffer) in (0..).zip(taken) {
            spares.give(Sized(buffer.0.max(size), at));
        }
    }

    #[test]
    fn what_was_given_back_last_is_used_first() {
        let spares = spares();
        need(&spares, 3, 10);
        let taken = [0; 4].map(|_| spares.take());
        let want = [Sized(10, 2), Sized(10, 1), Sized(10, 0), Sized(0, 0)];
        assert_eq!(taken, want);
    }

    #[test]
    fn no_more_are_kept_than_were_needed_at_once() {
        for size in [1024, LARGE, LARGE + 1, 330_000] {
            let spares = spares();
            // what another thread has taken
            for n in 0..1000 {
                spares.give(Sized(size, n));
            }
            assert_eq!(spares.held(), 0);
            need(&spares, 5, size);
            for n in 0..1000 {
                spares.give(Sized(size, n));
            }
            assert_eq!(spares.held(), 4 * size);
            // who needs as many again finds them all
            need(&spares, 5, 1);
            assert_eq!(spares.held(), 4 * size);
        }
    }

    #[test]
    fn they_are_bounded_however_many_are_needed() {
        for size in [1024, 20_000, 330_000] {
            let spares = spares();
            need(&spares, 5000, size);
            assert_eq!(spares.held(), MOST / size * size);
            let found = (0..5000).take_while(|_| spares.take().size() > 0).count();
            assert_eq!(found, 1 + MOST / size);
            assert_eq!(spares.held(), 0);
        }
    }

    #[test]
    fn what_was_not_needed_for_a_while_is_freed() {
        for size in [1024, LARGE] {
            let spares = spares();
            spares.trim();
            need(&spares, 50, size);
            spares.trim();
            // it was needed just before
            assert_eq!(spares.held(), 49 * size);
            for _ in 0..3 {
                need(&spares, 10, size);
                spares.trim();
                assert_eq!(spares.held(), 9 * size);
            }
            spares.trim();
            assert_eq!((spares.held(), spares.others.borrow().capacity()), (0, 0));
            // that was used last stays
            assert_eq!(spares.take().size(), size);
        }
    }

    #[test]
    fn what_is_out_when_they_are_looked_at_may_come_back() {
        let spares = spares();
        need(&spares, 50, 100);
        let taken: Vec<_> = (0..50).map(|_| spares.take()).collect();
        spares.trim();
        taken.into_iter().for_each(|buffer| spares.give(buffer));
        assert_eq!(spares.held(), 49 * 100);
    }

    #[test]
    fn large_ones_become_fewer_while_small_ones_would_do() {
        let spares = spares();
        need(&spares, 9, 330_000);
        for left in (1..9).rev() {
            need(&spares, 9, 1024);
            spares.trim();
            let taken: Vec<_> = (0..9).map(|_| spares.take()).collect();
            let large = taken.iter().filter(|taken| taken.size() > LARGE).count();
            assert_eq!(large, left);
            taken.into_iter().for_each(|buffer| spares.give(buffer));
        }
    }

    /// Two threads that hand each other buffers at random: no more than chance brings in a while.
    #[test]
    fn a_random_walk_between_threads_does_not_fill_them() {
        let threads = [spares(), spares()];
        let (mut random, mut made, mut most) = (1_u64, 0, 0);
        let mut next = |n: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            (random >> 33) % n
        };
        let mut busy: Vec<Sized> = Vec::new();
        for n in 0..200_000_u32 {
            let spares = &threads[next(2) as usize];
            if busy.len() < 10 && next(2) == 0 {
                let taken = spares.take();
                made += usize::from(taken.size() == 0);
                busy.push(Sized(20_544, n));
            } else if !busy.is_empty() {
                spares.give(busy.swap_remove(next(busy.len() as u64) as usize));
            }
            if n % 2000 == 0 {
                threads.iter().for_each(Spares::trim);
            }
            most = most.max(threads[0].held().max(threads[1].held()));
        }
        assert!(most < 100 * 20_544, "{most} bytes");
        assert!(made < 20_000, "{made} had to be made");
    }
}
