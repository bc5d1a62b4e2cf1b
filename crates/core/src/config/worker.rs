//! How worker threads run: [`WorkerConfig`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{check, text};
use crate::error::Result;

/// How worker threads run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerConfig {
    /// How long a worker goes on looking for input before it sleeps. To wake a thread on another
    /// core takes the system up to tens of microseconds, which a worker that is looking saves, at
    /// the price of its core's time. A worker for which that does not pay, because nothing comes or
    /// because the one who would send needs this core, stops looking and tries again now and
    /// then. Some 50 us are a good start, 10 ms the most. Default: off.
    #[serde(with = "text::optional_duration")]
    pub busy_poll: Option<Duration>,
    /// Whether each worker stays on one of the cores that the process may use, in turn. Linux only;
    /// elsewhere a warning is logged. Default: false.
    pub pin: bool,
}

impl WorkerConfig {
    /// Checks that the settings make sense where there are so many `workers`.
    pub(crate) fn validate(&self, workers: usize, prefix: &str) -> Result<()> {
        let longest = Duration::from_millis(10);
        check(
            self.busy_poll.is_none_or(|time| time <= longest),
            prefix,
            "busy_poll",
            "must be at most 10ms",
        )?;
        check(
            workers > 0 || *self == Self::default(),
            prefix,
            "busy_poll",
            "and pin need at least one worker",
        )
    }
}
