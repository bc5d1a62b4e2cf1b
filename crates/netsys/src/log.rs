//! What the engine tells about its work, on standard error: [`start`].

use std::io::{self, IsTerminal, Write};

use clap::Args;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

use crate::failure::{Failure, Result};
use crate::output;

/// What is logged unless something else is asked for.
pub const DEFAULT: &str = "warn";

const ALLOWED: &str = "a level (off, error, warn, info, debug, trace), or targets with levels, \
                       such as warn,network_system_core=debug";

/// The option that says what is logged.
#[derive(Args, Clone, Debug, Default)]
pub struct LogArgs {
    /// What to log to standard error: off, error, warn, info, debug, trace, or targets with
    /// levels, such as warn,network_system_core=debug [default: warn]
    #[arg(long, value_name = "FILTER", env = "NETSYS_LOG")]
    log: Option<String>,
}

impl LogArgs {
    /// The filter that was given; an empty one is as good as none.
    pub fn get(&self) -> Option<&str> {
        self.log.as_deref().filter(|filter| !filter.is_empty())
    }
}

/// Checks a filter such as `warn` or `warn,network_system_core=debug`.
///
/// # Errors
/// Says what is wrong and what is allowed.
pub fn parse(filter: &str) -> Result<Targets, String> {
    let wrong = |why: String| format!("'{filter}' is not a log filter: {why}; allowed: {ALLOWED}");
    for part in filter.split(',') {
        // a misspelt level would pass for the name of a target
        let level = part.trim().parse::<tracing::level_filters::LevelFilter>();
        let is_level = level.is_ok() && !part.is_empty();
        if !is_level && !part.contains('=') {
            return Err(wrong(format!("'{part}' is no level")));
        }
    }
    filter
        .parse()
        .map_err(|e: tracing_subscriber::filter::ParseError| wrong(e.to_string()))
}

/// Starts to log what `filter` lets through.
///
/// # Errors
/// The filter makes no sense.
pub fn start(filter: &str) -> Result<()> {
    let filter = parse(filter).map_err(Failure::usage)?;
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(AboveLive)
        .with_ansi(colours);
    // only a second start can fail, and the first one is as good
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init();
    Ok(())
}

/// Standard error, without tearing the live statistics line apart.
struct AboveLive;

impl<'a> MakeWriter<'a> for AboveLive {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for AboveLive {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        output::above_live(|| io::stderr().write_all(line)).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_levels_are_refused_and_the_allowed_ones_named() {
        for good in ["warn", "OFF", "debug", "warn,network_system_core=trace"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["wran", "warn,network_system_core", "warn,a=b", ""] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains("off, error, warn"), "{bad}: {error}");
        }
    }
}
