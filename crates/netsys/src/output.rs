//! Standard output: the live line of a terminal, plain lines, and units that people read.

mod units;

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

pub use units::{bytes, count, duration};

/// The line at the bottom of the terminal that is rewritten in place, while there is one.
static LIVE: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn live() -> MutexGuard<'static, Option<ProgressBar>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether standard output is a terminal.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes bytes to standard output, at once and as they are.
///
/// # Errors
/// What the system said; [`io::ErrorKind::BrokenPipe`] when nobody reads any more.
pub fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Prints a line for the user. Nobody reading it is no reason to stop working.
pub fn line(text: &str) {
    above_live(|| {
        let _ = write(format!("{text}\n").as_bytes());
    });
}

/// Prints `value` as one line of JSON. Nobody reading it is no reason to stop working.
pub fn json(value: &impl Serialize) {
    if let Ok(mut text) = serde_json::to_vec(value) {
        text.push(b'\n');
        let _ = write(&text);
    }
}

/// Shows `text` in the live line, which is cut to the width of the terminal.
pub fn show_live(text: String) {
    let mut live = live();
    let bar = live.get_or_insert_with(|| {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
        // a literal without unknown keys is a valid template
        if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
            bar.set_style(style);
        }
        bar
    });
    bar.set_message(text);
    bar.tick();
}

/// Takes the live line away.
pub fn end_live() {
    if let Some(bar) = live().take() {
        bar.finish_and_clear();
    }
}

/// Runs `print`, which writes whole lines, with the live line out of the way.
pub fn above_live<T>(print: impl FnOnce() -> T) -> T {
    match &*live() {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}
