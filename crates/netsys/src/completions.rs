//! `netsys completions`: scripts that let a shell complete commands and options.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::failure::{Failure, Result};
use crate::output;

const EXAMPLES: &str = "\
Examples:
  netsys completions bash > ~/.local/share/bash-completion/completions/netsys
  netsys completions zsh > ~/.zfunc/_netsys
  netsys completions fish > ~/.config/fish/completions/netsys.fish";

/// Print the script that lets a shell complete netsys's commands and options.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell to complete for
    shell: Shell,
}

/// Prints the completions of `command`.
///
/// # Errors
/// Standard output cannot be written to.
pub fn run(args: &CompletionsArgs, mut command: Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "netsys", &mut script);
    output::write(&script).map_err(|error| Failure::io("write the completions", &error))?;
    Ok(ExitCode::SUCCESS)
}
