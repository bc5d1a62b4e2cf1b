//! The gate: counts what a message costs, prints it beside what was agreed, and fails when it is
//! worse. `scripts/gate.sh` runs it.

mod baseline;
mod cases;
mod handler;
mod measure;
mod profile;
mod report;
mod rounds;

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use baseline::Figures;
use cases::{Case, SMALL};
use rounds::Rounds;

/// The result of everything in this program.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations of this process so far.
fn allocations() -> usize {
    let counted = ALLOCATOR.stats();
    counted.allocations + counted.reallocations
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let passed = match arguments[..] {
        [] => check(),
        ["--update"] => update(),
        [measure::RUN, case, rounds] => run(case, rounds),
        _ => {
            eprintln!("usage: gate [--update | {} CASE ROUNDS]", measure::RUN);
            return ExitCode::from(2);
        }
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and compares; whether nothing is worse.
fn check() -> Result<bool> {
    let agreed = Figures::load()?;
    let now = measure::figures()?;
    report::print(&now, &agreed);
    Ok(report::judge(&now, &agreed))
}

/// Measures and agrees on it.
fn update() -> Result<bool> {
    let now = measure::figures()?;
    // what was agreed before, if anything was
    if let Ok(agreed) = Figures::load() {
        report::print(&now, &agreed);
    }
    now.save()?;
    println!("\nbench/gate/baseline.toml is updated: commit it with the reason");
    Ok(true)
}

/// Only runs a case, for a profiler, and ends at once: who ends what in which order is chance.
fn run(case: &str, rounds: &str) -> Result<bool> {
    let case = Case::named(case).ok_or_else(|| format!("there is no case {case}"))?;
    let mut running = Rounds::start(&case, SMALL)?;
    running.run(rounds.parse()?)?;
    std::process::exit(0)
}
