//! Measures the cases: instructions and calls of the system with callgrind, in processes of their
//! own, and allocations here.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::baseline::{Figures, Versions, rounded};
use crate::cases::{Case, SMALL};
use crate::profile::{Counts, thread_counts};
use crate::rounds::Rounds;
use crate::{Result, allocations};

/// The option with which this program is run under callgrind, before the case and the rounds.
pub const RUN: &str = "--run";

/// Bytes of the messages whose allocations are counted.
const SIZES: [usize; 2] = [SMALL, 1024];

/// Spans of which the one with the fewest allocations counts: what a message takes is taken in all
/// of them, and what happens now and then (a deadline, a statistics interval) is not in all.
const SPANS: usize = 5;

/// All figures of all cases.
pub fn figures() -> Result<Figures> {
    let mut figures = Figures {
        measured_with: versions()?,
        ..Figures::default()
    };
    for case in Case::ALL {
        eprintln!("measuring {}", case.name);
        let name = || case.name.to_owned();
        let counts = counts(&case)?;
        let messages = case.messages(SMALL);
        let each = |count: i64| rounded(count as f64 / messages);
        let thousand = |count: i64| rounded(count as f64 / messages * 1000.0);
        let Figures {
            instructions_per_message,
            system_calls_per_1000_messages,
            looks_at_the_clock_per_1000_messages,
            allocations_per_1000_messages,
            ..
        } = &mut figures;
        instructions_per_message.insert(name(), each(counts.instructions));
        system_calls_per_1000_messages.insert(name(), thousand(counts.system_calls));
        looks_at_the_clock_per_1000_messages.insert(name(), thousand(counts.looks));
        for size in SIZES {
            let allocated = fewest_allocations(&case, size)?;
            allocations_per_1000_messages.insert(format!("{}_{size}", case.name), allocated);
        }
    }
    Ok(figures)
}

/// What the rounds of a case cost our side: the difference between a run with once and one with
/// twice as many, in which start, end and the way to rest are the same.
fn counts(case: &Case) -> Result<Counts> {
    let once = profiled(case, case.rounds)?;
    let twice = profiled(case, 2 * case.rounds)?;
    Ok(twice - once)
}

/// Runs a case under callgrind; what all threads but the first have cost, which is the other side.
fn profiled(case: &Case, rounds: usize) -> Result<Counts> {
    let directory = tempfile::tempdir()?;
    let profile = directory.path().join("profile");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes"])
        .args(["--collect-systime=yes", "--dump-line=no"])
        .args(["--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(std::env::current_exe()?)
        .args([RUN, case.name, &rounds.to_string()])
        .output()
        .map_err(|error| format!("cannot run valgrind: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} failed under valgrind:\n{said}", case.name).into());
    }
    ours(directory.path())
}

/// Adds up the profiles of our threads.
fn ours(directory: &Path) -> Result<Counts> {
    let mut total = Counts::default();
    let mut threads = 0;
    for entry in std::fs::read_dir(directory)? {
        let text = std::fs::read_to_string(entry?.path())?;
        if let Some((thread, counts)) = thread_counts(&text)?
            && thread > 1
        {
            total = total + counts;
            threads += 1;
        }
    }
    if threads == 0 {
        return Err("valgrind wrote no profile of a worker".into());
    }
    Ok(total)
}

/// Allocations for 1000 messages of `size` bytes, of both sides; the other side makes none.
fn fewest_allocations(case: &Case, size: usize) -> Result<f64> {
    let mut rounds = Rounds::start(case, size)?;
    rounds.run(case.rounds)?;
    let mut fewest = usize::MAX;
    for _ in 0..SPANS {
        let before = allocations();
        rounds.run(case.rounds)?;
        fewest = fewest.min(allocations() - before);
    }
    Ok(rounded(fewest as f64 / case.messages(size) * 1000.0))
}

/// What the counts depend on beside the code.
fn versions() -> Result<Versions> {
    let mut versions = BTreeMap::from([("processor".into(), std::env::consts::ARCH.into())]);
    for program in ["rustc", "valgrind"] {
        let output = Command::new(program)
            .arg("--version")
            .output()
            .map_err(|error| format!("cannot run {program}: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        versions.insert(program.into(), said.trim().to_owned());
    }
    Ok(versions)
}
