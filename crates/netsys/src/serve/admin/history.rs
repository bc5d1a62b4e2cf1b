//! One sample a second, for an hour: [`History`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use network_system::Statistics;
use serde::Serialize;

use super::State;

/// Samples that are kept: 60 minutes.
const MOST: usize = 3600;

/// What is drawn, of one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Seconds since 1970.
    time: f64,
    messages_in_per_second: f64,
    messages_out_per_second: f64,
    bytes_in_per_second: f64,
    bytes_out_per_second: f64,
    connections_active: u64,
    queued_bytes: u64,
    latency_p50_us: f64,
    latency_p99_us: f64,
}

impl Sample {
    fn of(s: &Statistics) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let us = |duration: Duration| duration.as_nanos() as f64 / 1e3;
        Self {
            time: now.unwrap_or_default().as_secs_f64(),
            messages_in_per_second: s.messages_in_per_second,
            messages_out_per_second: s.messages_out_per_second,
            bytes_in_per_second: s.bytes_in_per_second,
            bytes_out_per_second: s.bytes_out_per_second,
            connections_active: s.connections_active,
            queued_bytes: s.queued_bytes,
            latency_p50_us: us(s.latency.p50),
            latency_p99_us: us(s.latency.p99),
        }
    }
}

/// The last hour.
#[derive(Default)]
pub struct History(Mutex<VecDeque<Sample>>);

impl History {
    fn push(&self, sample: Sample) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= MOST {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Oldest first, those after this time (seconds since 1970).
    pub fn since(&self, time: f64) -> Vec<Sample> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().filter(|s| s.time > time).copied().collect()
    }
}

/// Takes the samples and tells them.
pub async fn keep(state: Arc<State>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let Some(statistics) = state.observer.statistics() else {
            return;
        };
        let sample = Sample::of(&statistics);
        state.history.push(sample);
        if let Ok(text) = serde_json::to_string(&sample) {
            state.latest.send_replace(text.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_what_is_older_than_an_hour() {
        let history = History::default();
        for n in 0..2 * MOST {
            let sample = Sample::of(&Statistics::default());
            history.push(Sample {
                time: n as f64,
                ..sample
            });
        }
        assert_eq!(history.since(0.0).len(), MOST);
        assert_eq!(history.since(2.0 * MOST as f64 - 3.0).len(), 2);
        assert!(history.0.lock().unwrap().capacity() <= 2 * MOST);
    }
}
