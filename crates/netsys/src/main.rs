//! The `netsys` command line: parses the arguments and hands over to the subcommand's module.

mod address;
mod bench;
mod cert;
mod completions;
mod config;
mod connect;
mod failure;
mod interval;
mod limits;
mod log;
mod modes;
mod output;
mod pipeline;
mod serve;
mod signals;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  netsys serve                             echo on 127.0.0.1:8080, for every protocol
  netsys connect tcp://127.0.0.1:8080      type lines, see what comes back
  netsys bench                             measure this machine
  netsys help serve                        every option of a command, with examples";

/// Message servers from the command line.
#[derive(Debug, Parser)]
#[command(name = "netsys", version, about, max_term_width = 100)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", failure::EXIT_CODES))]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Connect(connect::ConnectArgs),
    Bench(bench::BenchArgs),
    Top(top::TopArgs),
    Config(config::ConfigArgs),
    Cert(cert::CertArgs),
    NoiseKey(pipeline::NoiseKeyArgs),
    Completions(completions::CompletionsArgs),
    #[command(hide = true)]
    BenchServer(bench::ServerArgs),
    #[command(hide = true)]
    BenchClient(bench::ClientArgs),
}

fn main() -> ExitCode {
    let result = match &Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Connect(args) => connect::run(args),
        Command::Bench(args) => return bench::run(args),
        Command::Top(args) => top::run(args),
        Command::Config(args) => config::run(args),
        Command::Cert(args) => cert::run(args),
        Command::NoiseKey(args) => pipeline::run(args),
        Command::Completions(args) => completions::run(args, Cli::command()),
        Command::BenchServer(args) => return bench::run_server(args),
        Command::BenchClient(args) => return bench::run_client(args),
    };
    result.unwrap_or_else(|failure| failure.report())
}
