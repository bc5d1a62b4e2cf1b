//! The command line as a whole: help, completions, and how it looks in a pipe.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use common::{ended, netsys, run};

fn output(arguments: &[&str]) -> String {
    let mut command = netsys();
    command.args(arguments);
    ended(&run(command, b""), 0).0
}

#[test]
fn every_help_has_examples_and_exit_codes() {
    for command in ["serve", "connect", "config", "cert"] {
        for help in [output(&[command, "--help"]), output(&["help", command])] {
            assert!(help.contains("\nExamples:\n"), "{help}");
            assert!(help.contains(&format!("netsys {command} ")), "{help}");
            assert!(help.contains("Exit codes:\n  0    done\n"), "{help}");
            assert!(!help.contains('\x1b'), "colours in a pipe: {help:?}");
        }
    }
    let help = output(&["--help"]);
    for wanted in [
        "serve",
        "connect",
        "bench",
        "config",
        "cert",
        "completions",
        "Examples:",
        "Exit codes:",
    ] {
        assert!(help.contains(wanted), "{wanted}: {help}");
    }
    assert!(output(&["completions", "--help"]).contains("Examples:"));
}

#[test]
fn help_tells_defaults() {
    let help = output(&["serve", "--help"]);
    for wanted in [
        "[default: auto://127.0.0.1:8080]",
        "[default: echo]",
        "[default: 1]",
    ] {
        assert!(help.contains(wanted), "{wanted}: {help}");
    }
    assert!(output(&["connect", "--help"]).contains("[default: 1s]"));
}

#[test]
fn completions_know_commands_and_options() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = output(&["completions", shell]);
        for wanted in ["netsys", "serve", "connect", "stats-interval", "keep-open"] {
            assert!(script.contains(wanted), "{shell}: {wanted}");
        }
    }
    let mut command = netsys();
    command.args(["completions", "cmd"]);
    let (_, err) = ended(&run(command, b""), 2);
    assert!(err.contains("bash"), "{err}");
}

/// The shell itself must accept the script.
#[cfg(unix)]
#[test]
fn bash_reads_its_completions() {
    let mut command = std::process::Command::new("bash");
    command.args(["-c", "source /dev/stdin && complete -p netsys"]);
    let (out, _) = ended(
        &run(command, output(&["completions", "bash"]).as_bytes()),
        0,
    );
    assert!(out.contains("_netsys"), "{out}");
}

#[test]
fn no_command_shows_help_and_is_an_error() {
    let (_, err) = ended(&run(netsys(), b""), 2);
    assert!(err.contains("Usage: netsys"), "{err}");
}
