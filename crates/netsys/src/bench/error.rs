//! What can end a benchmark early, and the exit code that tells a script which it was.

use std::fmt::Display;
use std::process::ExitCode;

/// Why a benchmark, or one of its child processes, stopped without a result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options cannot be carried out as given: exit code 2, as for a misspelt option.
    #[error("{0}")]
    Usage(String),
    /// A measurement failed, or delivered something else than what was sent: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Ctrl-C: exit code 130, as shells report it.
    #[error("interrupted")]
    Interrupted,
}

/// The result of everything in this module.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Prints the error and gives the process's exit code.
    pub fn report(&self) -> ExitCode {
        eprintln!("error: {self}");
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
            Self::Interrupted => 130,
        })
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(format!("the connection broke: {error}"))
    }
}

/// Says what was being done when something failed.
pub trait Context<T> {
    /// Turns an error into [`Error::Failed`] with `what` in front of it.
    fn context(self, what: impl Display) -> Result<T>;
}

impl<T, E: Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl Display) -> Result<T> {
        self.map_err(|error| Error::Failed(format!("{what}: {error}")))
    }
}
