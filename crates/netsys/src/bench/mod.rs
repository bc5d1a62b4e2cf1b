//! `netsys bench`: measures an implementation against raw sockets and proves every delivery.
//!
//! `plan` turns options into cases, `orchestrate` runs a server and a client process for each
//! round of each case (`child`, `roles`), `raw_*` are the reference programs, `ours_*`
//! the same with this library (`way`: what a pipeline does to its messages), `verify` knows what
//! a message looks like, `text` makes some of JSON, and `report` and `chart` show the result.

mod chart;
mod child;
mod error;
mod machine;
mod orchestrate;
mod ours_client;
mod ours_server;
mod plan;
mod progress;
mod raw_client;
mod raw_frames;
mod raw_poll;
mod raw_poll_client;
mod raw_poll_server;
mod raw_server;
mod report;
mod roles;
mod statistics;
mod table;
mod text;
mod verify;
mod way;

use std::process::ExitCode;

pub use plan::BenchArgs;
pub use roles::{ClientArgs, ServerArgs};

use error::{Context, Result};

/// Runs `netsys bench`.
pub fn run(args: &BenchArgs) -> ExitCode {
    exit_code(bench(args))
}

/// Runs the hidden server role.
pub fn run_server(args: &ServerArgs) -> ExitCode {
    exit_code(roles::server(args))
}

/// Runs the hidden client role.
pub fn run_client(args: &ClientArgs) -> ExitCode {
    exit_code(roles::client(args))
}

fn exit_code(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn bench(args: &BenchArgs) -> Result<()> {
    let report = orchestrate::run(args)?;
    if let Some(path) = &args.svg {
        chart::write(&report, path)?;
        eprintln!("chart written to {}", path.display());
    }
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&report).context("cannot write JSON")?
        );
    } else {
        print!("{}", table::render(&report));
    }
    Ok(())
}
