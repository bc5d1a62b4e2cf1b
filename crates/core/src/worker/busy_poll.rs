//! Looking for events before a worker sleeps, as long as that pays: [`BusyPoll`].

use std::io;
use std::time::{Duration, Instant};

use mio::Poll;

use super::events::Events;

/// After so many looks in vain the pauses between them get no longer: about 2 to the power of this
/// waits.
const MOST: u32 = 10;

/// Decides before each wait whether to look for events for a while.
pub(super) struct BusyPoll {
    /// How long; `None` is never.
    time: Option<Duration>,
    /// How many more looks were in vain lately than have paid.
    vain: u32,
    /// Waits to pass before the next one.
    pass: u32,
}

impl BusyPoll {
    pub(super) fn new(time: Option<Duration>) -> Self {
        let time = time.filter(|time| !time.is_zero());
        let (vain, pass) = (0, 0);
        Self { time, vain, pass }
    }

    /// Looks for events if that has paid lately; whether there are any.
    #[inline]
    pub(super) fn find(&mut self, poll: &mut Poll, events: &mut Events) -> io::Result<bool> {
        let Some(time) = self.time else {
            return Ok(false);
        };
        if !self.is_due() {
            return Ok(false);
        }
        events.wait(poll, Some(Duration::ZERO))?;
        if !events.is_empty() {
            // no wait, and so nothing to learn from
            return Ok(true);
        }
        let start = Instant::now();
        loop {
            events.wait(poll, Some(Duration::ZERO))?;
            let in_time = start.elapsed() < time;
            if events.is_empty() && in_time {
                std::hint::spin_loop();
                continue;
            }
            // what came too late came because another thread had this core meanwhile
            self.looked(in_time);
            return Ok(!events.is_empty());
        }
    }

    /// Whether it is time for a look.
    fn is_due(&mut self) -> bool {
        let due = self.pass == 0;
        self.pass = self.pass.saturating_sub(1);
        due
    }

    /// Remembers whether a look has paid.
    fn looked(&mut self, paid: bool) {
        self.vain = match paid {
            // not all at once: by chance a look pays also where most are in vain
            true => self.vain.saturating_sub(1),
            false => (self.vain + 1).min(MOST),
        };
        self.pass = (1 << self.vain) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_in_vain_get_rare_and_one_that_pays_brings_them_back() {
        let mut busy = BusyPoll::new(Some(Duration::from_micros(50)));
        let mut waits = 0;
        let mut pauses = Vec::new();
        while pauses.len() < 15 {
            waits += 1;
            if busy.is_due() {
                busy.looked(false);
                pauses.push(std::mem::take(&mut waits));
            }
        }
        assert_eq!(pauses[..5], [1, 2, 4, 8, 16]);
        assert_eq!(pauses[11..], [1 << MOST; 4]);
        for _ in 0..MOST {
            while !busy.is_due() {}
            busy.looked(true);
        }
        assert!(busy.is_due() && busy.is_due());
    }

    #[test]
    fn without_a_time_it_never_looks() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::new();
        for time in [None, Some(Duration::ZERO)] {
            let mut busy = BusyPoll::new(time);
            assert!(!busy.find(&mut poll, &mut events).unwrap());
            assert_eq!(busy.vain, 0);
        }
    }

    #[test]
    fn it_finds_what_is_there() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::new();
        let waker = mio::Waker::new(poll.registry(), mio::Token(1)).unwrap();
        let mut busy = BusyPoll::new(Some(Duration::from_millis(1)));
        assert!(!busy.find(&mut poll, &mut events).unwrap());
        assert_eq!((busy.vain, busy.pass), (1, 1));
        waker.wake().unwrap();
        assert!(!busy.find(&mut poll, &mut events).unwrap(), "a pause");
        assert!(busy.find(&mut poll, &mut events).unwrap());
        assert_eq!(busy.vain, 1, "it was there before");
        busy.time = Some(Duration::from_secs(60));
        // kept to the end, since what it has told goes with it
        let later = std::thread::spawn(move || waker.wake().map(|()| waker));
        assert!(busy.find(&mut poll, &mut events).unwrap());
        drop(later.join().unwrap().unwrap());
    }
}
