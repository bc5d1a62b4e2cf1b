//! The `netsys` command line: parses the arguments and hands over to the subcommand's module.

mod bench;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Message servers from the command line.
#[derive(Debug, Parser)]
#[command(name = "netsys", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::BenchArgs),
    #[command(hide = true)]
    BenchServer(bench::ServerArgs),
    #[command(hide = true)]
    BenchClient(bench::ClientArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::BenchServer(args) => bench::run_server(&args),
        Command::BenchClient(args) => bench::run_client(&args),
    }
}
