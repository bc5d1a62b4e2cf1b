//! Looks at the process every second, and judges it in the end.

use std::alloc::System;
use std::fs;

use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::Handle;

use crate::Result;
use crate::load::Loads;

/// Counts what is allocated: what the process has of the system also holds what is free in between.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How much more memory the last fifth may have than the second: this share, and so many bytes.
const MORE: f64 = 0.05;
const MORE_BYTES: f64 = (2 << 20) as f64;
/// Descriptors, in the same way: connections come and go.
const MORE_FILES: f64 = 5.0;

/// What the process has at one moment.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Bytes of memory, as the system counts them.
    pub memory: u64,
    /// Bytes that are allocated and not freed.
    pub heap: u64,
    /// Open file descriptors.
    pub files: usize,
    /// Tasks of the runtime.
    pub tasks: usize,
}

impl Sample {
    pub fn take() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line
            .ok_or("no VmRSS")?
            .trim()
            .trim_end_matches(" kB")
            .parse()?;
        let heap = ALLOCATOR.stats();
        Ok(Self {
            memory: kib << 10,
            heap: (heap.bytes_allocated - heap.bytes_deallocated) as u64,
            // without the one that reads them
            files: fs::read_dir("/proc/self/fd")?.count() - 1,
            tasks: Handle::current().metrics().num_alive_tasks(),
        })
    }
}

/// Whether the last fifth has more than the second, by more than the margins; says so.
pub fn has_grown(samples: &[Sample]) -> bool {
    let fifth = samples.len() / 5;
    if fifth == 0 {
        println!("too short to compare memory and descriptors");
        return true;
    }
    let (before, after) = (&samples[fifth..2 * fifth], &samples[4 * fifth..]);
    let memory = |sample: &Sample| sample.memory as f64;
    let files = |sample: &Sample| sample.files as f64;
    let memory = (median(before, memory), median(after, memory));
    let files = (median(before, files), median(after, files));
    let heap = |sample: &Sample| sample.heap as f64;
    let heap = (median(before, heap), median(after, heap));
    println!(
        "memory, medians of the second and the last fifth: {:.2} and {:.2} MiB ({:+.1} %)",
        memory.0 / 1048576.0,
        memory.1 / 1048576.0,
        (memory.1 / memory.0 - 1.0) * 100.0
    );
    println!(
        "allocated likewise: {:.0} and {:.0} KiB",
        heap.0 / 1024.0,
        heap.1 / 1024.0
    );
    println!("descriptors likewise: {} and {}", files.0, files.1);
    let over = |(before, after): (f64, f64), more| after > before * (1.0 + MORE) + more;
    over(memory, MORE_BYTES) || over(heap, MORE_BYTES) || over(files, MORE_FILES)
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One line on everything, for people or as JSON.
pub fn report(seconds: u64, kills: u64, now: Sample, loads: &Loads, as_json: bool) {
    let pool = loads.pool.statistics();
    let opened = loads.breaker.statistics().opened;
    let of = |count: fn(&crate::tally::Tally) -> u64| -> u64 {
        loads.tallies.iter().map(|tally| count(tally)).sum()
    };
    let (ok, errors) = (of(|t| t.ok()), of(|t| t.failed()));
    let wrong = of(|t| t.wrong());
    if as_json {
        let each = loads.tallies.iter().map(|tally| {
            let counts =
                json!({ "ok": tally.ok(), "errors": tally.errors(), "wrong": tally.wrong() });
            (tally.name.to_owned(), counts)
        });
        let line = json!({
            "seconds": seconds, "kills": kills, "ok": ok, "errors": errors, "wrong": wrong,
            "memory": now.memory, "heap": now.heap, "files": now.files, "tasks": now.tasks,
            "pool": { "open": pool.open, "idle": pool.idle, "waiting": pool.waiting,
                      "created": pool.created, "failed": pool.failed },
            "breaker_opened": opened,
            "loads": each.collect::<serde_json::Map<_, _>>(),
        });
        println!("{line}");
    } else {
        println!(
            "{seconds:>5} s  {kills} kills  {ok} ok  {errors} errors  {wrong} wrong  {:.2} MiB  \
             {} KiB allocated  {} files  {} tasks  pool: {} open, {} idle, {} waiting, {} made  breaker opened {opened}",
            now.memory as f64 / 1048576.0,
            now.heap >> 10,
            now.files,
            now.tasks,
            pool.open,
            pool.idle,
            pool.waiting,
            pool.created,
        );
    }
}
