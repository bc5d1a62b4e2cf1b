//! Reads callgrind's output: what one thread has cost.

use std::ops::{Add, Sub};

use crate::Result;

/// What code has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instructions, those of the kernel not included.
    pub instructions: i64,
    /// System calls.
    pub system_calls: i64,
    /// Looks at the clock. Under valgrind they are system calls, but on Linux they are none, and
    /// take as long as a short message does.
    pub looks: i64,
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            instructions: self.instructions + other.instructions,
            system_calls: self.system_calls + other.system_calls,
            looks: self.looks + other.looks,
        }
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            instructions: self.instructions - other.instructions,
            system_calls: self.system_calls - other.system_calls,
            looks: self.looks - other.looks,
        }
    }
}

/// The number of the thread that a profile is about and what it has cost; `None` for a profile of
/// no thread.
///
/// The profile is one with uncompressed names and positions, and the events `Ir sysCount`.
pub fn thread_counts(profile: &str) -> Result<Option<(u32, Counts)>> {
    let (mut thread, mut counts) = (None, Counts::default());
    let mut on_clock = false;
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if let Some(number) = line.strip_prefix("thread: ") {
            thread = Some(number.trim().parse()?);
        } else if let Some(events) = line.strip_prefix("events: ") {
            if !events.starts_with("Ir sysCount") {
                return Err(format!("valgrind counted something else: {events}").into());
            }
        } else if let Some(name) = line.strip_prefix("fn=") {
            on_clock = name.starts_with("clock_gettime");
        } else if line.starts_with("calls=") {
            // the next line has the cost of the callee, which stands there, too
            lines.next();
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            // zeros at the end are left out
            let mut costs = line.split(' ').skip(1).map(str::parse::<i64>);
            counts.instructions += costs.next().transpose()?.unwrap_or_default();
            let calls = costs.next().transpose()?.unwrap_or_default();
            if on_clock {
                counts.looks += calls;
            } else {
                counts.system_calls += calls;
            }
        }
    }
    Ok(thread.map(|thread| (thread, counts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
# callgrind format
thread: 3

positions: line
events: Ir sysCount sysTime

fl=worker.rs
fn=run
0 100
cob=/lib/libc.so.6
cfi=???
cfn=clock_gettime@@GLIBC_2.17
calls=2 0
0 20 2 1
0 7

ob=/lib/libc.so.6
fl=???
fn=clock_gettime@@GLIBC_2.17
0 20 2 1

fn=epoll_wait
0 12 4

totals: 139 6 1
";

    #[test]
    fn own_costs_are_added_and_looks_at_the_clock_are_apart() {
        let counts = Counts {
            instructions: 139,
            system_calls: 4,
            looks: 2,
        };
        assert_eq!(thread_counts(PROFILE).unwrap(), Some((3, counts)));
    }

    #[test]
    fn a_profile_of_no_thread_is_none() {
        assert_eq!(thread_counts("# callgrind format\n").unwrap(), None);
    }

    #[test]
    fn other_events_are_refused() {
        let error = thread_counts(&PROFILE.replace("sysCount", "Dr")).unwrap_err();
        assert!(error.to_string().contains("Ir Dr"), "{error}");
    }
}
