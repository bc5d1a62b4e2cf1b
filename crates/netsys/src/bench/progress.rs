//! How far a benchmark is: a bar on a terminal, plain lines otherwise, always on standard error.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

/// Counts measurements.
#[derive(Debug)]
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Of `total` measurements.
    ///
    /// The bar moves between measurements only: during one, this process sleeps.
    pub fn new(total: usize) -> Self {
        let bar = stderr()
            .is_terminal()
            .then(|| ProgressBar::new(total as u64));
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} (about {eta} left)");
        if let (Some(bar), Ok(style)) = (&bar, style) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// A measurement begins.
    pub fn start(&self, what: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(what.to_owned());
            bar.tick();
        }
    }

    /// It is over and has this result.
    pub fn done(&self, what: &str, result: &str) {
        match &self.0 {
            Some(bar) => bar.inc(1),
            None => eprintln!("{what}: {result}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
