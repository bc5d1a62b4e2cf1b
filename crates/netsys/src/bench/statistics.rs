//! Medians over rounds, and latency percentiles within one.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::error::{Context, Result};

/// The middle of several rounds, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle value; the mean of the two middle ones when their number is even.
    pub median: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

impl Spread {
    /// The spread of `values`, or nothing when there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self {
            median: (lower + upper) / 2.0,
            min,
            max,
        })
    }
}

/// Latency percentiles in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of the messages took at most this long.
    pub p50: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Percentiles {
    /// The median of each percentile over several rounds.
    pub fn median(rounds: &[Self]) -> Option<Self> {
        let of = |field: fn(&Self) -> f64| Spread::of(rounds.iter().map(field)).map(|s| s.median);
        Some(Self {
            p50: of(|r| r.p50)?,
            p90: of(|r| r.p90)?,
            p99: of(|r| r.p99)?,
            p999: of(|r| r.p999)?,
            max: of(|r| r.max)?,
        })
    }
}

/// The latencies of a measurement, up to a minute each, to three digits.
#[derive(Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub fn new() -> Result<Self> {
        Histogram::new_with_max(60_000_000_000, 3)
            .map(Self)
            .context("cannot make a histogram")
    }

    /// Adds `count` messages that took `time` each.
    #[inline]
    pub fn add(&mut self, time: Duration, count: u64) {
        self.0
            .saturating_record_n(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), count);
    }

    /// The percentiles, or nothing when nothing was added.
    pub fn percentiles(&self) -> Option<Percentiles> {
        if self.0.is_empty() {
            return None;
        }
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        Some(Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max() as f64 / 1e3,
        })
    }
}

/// When the messages that are under way on one connection left.
///
/// Messages that leave in one write share one time, and those that arrive in one read share
/// another: a window of 256 costs two clock readings instead of 512, and loses nothing, since
/// neither call tells when each message passed.
#[derive(Debug, Default)]
pub struct Flight {
    batches: VecDeque<(u64, Duration)>,
    arrived: u64,
}

impl Flight {
    /// All messages below sequence number `end` that had not left yet, left at `now`.
    #[inline]
    pub fn left(&mut self, end: u64, now: Duration) {
        self.batches.push_back((end, now));
    }

    /// All messages below sequence number `end` have arrived at `now`.
    #[inline]
    pub fn arrived(&mut self, end: u64, now: Duration, latencies: &mut Latencies) {
        while let Some(&(batch_end, at)) = self.batches.front() {
            let upto = end.min(batch_end);
            if upto > self.arrived {
                latencies.add(now.saturating_sub(at), upto - self.arrived);
                self.arrived = upto;
            }
            if batch_end > end {
                return;
            }
            self.batches.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_middle_ones() {
        assert_eq!(Spread::of([]), None);
        let odd = Spread::of([9.0, 1.0, 4.0]).unwrap();
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 4.0, 9.0));
        let even = Spread::of([9.0, 1.0, 4.0, 5.0]).unwrap();
        assert_eq!(even.median, 4.5);
        let one = Spread::of([2.0]).unwrap();
        assert_eq!((one.min, one.median, one.max), (2.0, 2.0, 2.0));
    }

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let mut latencies = Latencies::new().unwrap();
        assert_eq!(latencies.percentiles(), None);
        for micros in 1..=1000 {
            latencies.add(Duration::from_micros(micros), 1);
        }
        let found = latencies.percentiles().unwrap();
        for (value, expected) in [
            (found.p50, 500.0),
            (found.p90, 900.0),
            (found.p99, 990.0),
            (found.p999, 999.0),
            (found.max, 1000.0),
        ] {
            assert!(
                (value / expected - 1.0).abs() < 0.0015,
                "{value} is not {expected}"
            );
        }
    }

    #[test]
    fn a_flight_times_each_message_from_its_own_batch() {
        let micros = Duration::from_micros;
        let mut latencies = Latencies::new().unwrap();
        let mut flight = Flight::default();
        flight.left(4, micros(0));
        flight.left(6, micros(100));
        flight.arrived(3, micros(10), &mut latencies); // three of 10 us
        flight.arrived(5, micros(120), &mut latencies); // one of 120 us, one of 20 us
        flight.arrived(6, micros(130), &mut latencies); // one of 30 us
        assert_eq!(latencies.0.len(), 6);
        let count = |value: f64| latencies.0.count_at((value * 1e3) as u64);
        assert_eq!([10.0, 120.0, 20.0, 30.0].map(count), [3, 1, 1, 1]);
        assert!(flight.batches.is_empty());
    }
}
