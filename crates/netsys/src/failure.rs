//! How a command fails: [`Failure`], one line for people and an exit code for scripts.

use std::error::Error as StdError;
use std::fmt::{self, Display, Write as _};
use std::process::ExitCode;

use network_system::{Error, ErrorKind};

/// The exit codes, as every `--help` shows them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    something failed on the way
  2    wrong arguments or configuration
  3    could not connect, or could not listen
  4    a deadline passed
  130  ended at once by a second Ctrl-C";

/// Why the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something failed on the way.
    General = 1,
    /// Wrong arguments or configuration; what clap uses, too.
    Usage = 2,
    /// Could not connect, or could not listen.
    Connection = 3,
    /// A deadline passed.
    Timeout = 4,
    /// Ended at once by a second Ctrl-C, as shells report it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The result of every command.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// What went wrong, ready to be shown.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    code: i32,
    text: String,
    causes: Vec<String>,
    broken_pipe: bool,
}

impl Failure {
    /// A failure without a library error behind it; `kind` gives the number in brackets.
    pub fn new(exit: Exit, kind: ErrorKind, text: impl Display) -> Self {
        Self {
            exit,
            code: kind.code(),
            text: text.to_string(),
            causes: Vec::new(),
            broken_pipe: false,
        }
    }

    /// Wrong arguments or configuration.
    pub fn usage(text: impl Display) -> Self {
        Self::new(Exit::Usage, ErrorKind::InvalidArgument, text)
    }

    /// An operation on a file or stream of this machine failed.
    pub fn io(action: impl Display, error: &std::io::Error) -> Self {
        let text = format!("could not {action}: {}", without_number(&error.to_string()));
        let broken_pipe = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self {
            broken_pipe,
            ..Self::new(Exit::General, ErrorKind::Io, text)
        }
    }

    /// Whether nobody reads our output any more.
    pub fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }

    /// `error` came while connecting or listening, so that is what has failed, whatever its kind.
    pub fn connecting(error: &Error) -> Self {
        let mut failure = Self::from(error);
        if failure.exit != Exit::Usage {
            failure.exit = Exit::Connection;
        }
        failure
    }

    /// The same, as a matter of wrong arguments.
    #[must_use]
    pub fn into_usage(self) -> Self {
        Self {
            exit: Exit::Usage,
            ..self
        }
    }

    /// Prints it on standard error, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        crate::output::above_live(|| eprint!("{self}"));
        self.exit.into()
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::InvalidArgument => Exit::Usage,
            ErrorKind::Timeout => Exit::Timeout,
            ErrorKind::BindFailed
            | ErrorKind::ConnectionFailed
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionTimeout
            | ErrorKind::Untrusted
            | ErrorKind::Handshake => Exit::Connection,
            _ => Exit::General,
        };
        let text = error.to_string();
        Self {
            exit,
            code: error.code(),
            causes: causes(&text, error),
            text,
            broken_pipe: false,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl Display for Failure {
    /// `error: what and why [code]`, then what does not fit into one line: an address with its bad
    /// part underlined, and causes that say more than the line does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, rest) = self.text.split_once('\n').unwrap_or((&self.text, ""));
        writeln!(f, "error: {first} [{}]", self.code)?;
        if !rest.is_empty() {
            writeln!(f, "{rest}")?;
        }
        for cause in &self.causes {
            writeln!(f, "  cause: {cause}")?;
        }
        Ok(())
    }
}

/// The causes of `error` that `text` does not name already.
fn causes(text: &str, error: &dyn StdError) -> Vec<String> {
    let mut said = text.to_lowercase();
    let mut found = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = without_number(&cause.to_string()).to_owned();
        if !said.contains(&cause_text.to_lowercase()) {
            let _ = write!(said, " {}", cause_text.to_lowercase());
            found.push(cause_text);
        }
        next = cause.source();
    }
    found
}

/// The text of a system error without its number.
fn without_number(text: &str) -> &str {
    text.split_once(" (os error").map_or(text, |(head, _)| head)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn one_line_with_the_code_and_no_cause_that_says_the_same() {
        let error = Error::from_io("connect to", io::ErrorKind::ConnectionRefused.into());
        let failure = Failure::from(error.peer("tcp://127.0.0.1:1"));
        assert_eq!(
            failure.to_string(),
            "error: could not connect to tcp://127.0.0.1:1: connection refused [-601]\n"
        );
        assert_eq!(failure.exit, Exit::Connection);
    }

    #[test]
    fn causes_that_say_more_are_shown() {
        let cause = io::Error::other("the disk is on fire");
        let error = Error::new(ErrorKind::Internal, "work").caused_by(cause);
        assert_eq!(
            Failure::from(error).to_string(),
            "error: could not work: internal error [-99]\n  cause: the disk is on fire\n"
        );
    }

    #[test]
    fn the_bad_part_of_an_address_stays_underlined() {
        let bad = "tcp://h:99999".parse::<network_system::Address>();
        let text = Failure::from(Error::from(bad.unwrap_err())).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("is needed [-1]"), "{text}");
        assert_eq!(lines[1..], ["  tcp://h:99999", "          ^^^^^"]);
    }

    #[test]
    fn connecting_is_what_failed_whatever_the_kind() {
        let error = Error::new(ErrorKind::NotFound, "connect to");
        assert_eq!(Failure::from(&error).exit, Exit::General);
        assert_eq!(Failure::connecting(&error).exit, Exit::Connection);
        let error = Error::new(ErrorKind::InvalidArgument, "connect to");
        assert_eq!(Failure::connecting(&error).exit, Exit::Usage);
    }
}
