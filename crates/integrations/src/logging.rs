//! The application's own log as the place for what network-system tells: [`Logger`], [`set_logger`]
//! and [`layer`].
//!
//! The engine speaks through `tracing`. Applications that use `tracing`, too, need nothing of this.

use std::fmt::{self, Debug, Write};
use std::sync::Arc;

use network_system_core::{Error, ErrorKind, Result};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// How much a record matters, from the least on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Every step.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What happens in good order, such as a server that listens.
    Info,
    /// What should not happen, and harms little.
    Warn,
    /// What has failed.
    Error,
    /// What the program cannot go on after; network-system itself never says that.
    Fatal,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        })
    }
}

impl From<tracing::Level> for Level {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::TRACE => Self::Trace,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::INFO => Self::Info,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::ERROR => Self::Error,
        }
    }
}

/// One entry of a log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record<'a> {
    /// How much it matters.
    pub level: Level,
    /// The part of the program that it is from, such as `network_system_core::server`.
    pub target: &'a str,
    /// The sentence. Text of a peer in it has its control characters escaped, so that nobody can
    /// forge an entry.
    pub message: &'a str,
    /// What the sentence is about, by name, such as `peer`; escaped as the sentence is.
    pub fields: &'a [(&'static str, String)],
    /// The source file.
    pub file: Option<&'a str>,
    /// The line in it.
    pub line: Option<u32>,
}

impl fmt::Display for Record<'_> {
    /// One line: level, target, sentence, fields.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:5} {}: {}", self.level, self.target, self.message)?;
        self.fields
            .iter()
            .try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// A log of the application's own.
///
/// It is called on the threads that connections live on: one that is slow should hand over to a
/// thread of its own. What it logs itself through `tracing` comes back to it.
pub trait Logger: Send + Sync + 'static {
    /// Whether records of this level are wanted. Asked once for each place in the source: the
    /// answer must stay the same.
    fn enabled(&self, level: Level) -> bool {
        level >= Level::Info
    }

    /// Takes one record.
    fn log(&self, record: &Record<'_>);
}

impl<L: Logger + ?Sized> Logger for Arc<L> {
    fn enabled(&self, level: Level) -> bool {
        (**self).enabled(level)
    }

    fn log(&self, record: &Record<'_>) {
        (**self).log(record);
    }
}

/// Sends what this program tells through `tracing` to `logger`, from now on.
///
/// ```
/// use network_system_integrations::logging::{self, Logger, Record};
///
/// struct Lines;
///
/// impl Logger for Lines {
///     fn log(&self, record: &Record<'_>) {
///         eprintln!("{record}");
///     }
/// }
///
/// # fn main() -> network_system::Result<()> {
/// logging::set_logger(Lines)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`ErrorKind::AlreadyExists`] when the process has a logger or a subscriber of `tracing`; a layer
/// of that can be had with [`layer`].
pub fn set_logger(logger: impl Logger) -> Result<()> {
    let subscriber = tracing_subscriber::registry().with(layer(logger));
    // also takes what other crates tell through `log`, if that feature of tracing-subscriber is on
    subscriber.try_init().map_err(|_| {
        Error::new(ErrorKind::AlreadyExists, "set the logger")
            .because("the process has one already")
            .advice("add `layer` to the subscriber that is there")
    })
}

/// The logger as a layer of a subscriber that the application has. What the logger does not want is
/// still there for the other layers.
pub fn layer<S>(logger: impl Logger) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let logger = Arc::new(logger);
    let asked = logger.clone();
    let wanted = filter_fn(move |metadata| {
        let level = Level::from(*metadata.level());
        asked.enabled(level) || (level == Level::Error && asked.enabled(Level::Fatal))
    });
    ToLogger(logger).with_filter(wanted)
}

struct ToLogger<L>(L);

/// The field that makes an error a fatal one, which `tracing` has no level for:
/// `tracing::error!(fatal = true, "…")`.
const FATAL: &str = "fatal";

impl<S: Subscriber, L: Logger> Layer<S> for ToLogger<L> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut texts = Texts::default();
        event.record(&mut texts);
        let level = if texts.fatal {
            Level::Fatal
        } else {
            Level::from(*metadata.level())
        };
        if self.0.enabled(level) {
            self.0.log(&Record {
                level,
                target: metadata.target(),
                message: &texts.message,
                fields: &texts.fields,
                file: metadata.file(),
                line: metadata.line(),
            });
        }
    }
}

/// What an event says, as text.
#[derive(Default)]
struct Texts {
    message: String,
    fields: Vec<(&'static str, String)>,
    fatal: bool,
}

/// Control characters are for the terminal of whoever reads the log, and not for peers to send.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

impl Texts {
    fn add(&mut self, field: &Field, text: &str) {
        let text = escape(text);
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.push((field.name(), text));
        }
    }
}

impl Visit for Texts {
    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == FATAL {
            self.fatal = value;
        } else {
            self.add(field, if value { "true" } else { "false" });
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        // a `Debug` that fails has said what it could
        let _ = write!(text, "{value:?}");
        self.add(field, &text);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<(Level, String, bool)>>);

    impl Logger for Kept {
        fn log(&self, record: &Record<'_>) {
            let here = record.file.is_some_and(|file| file.ends_with("logging.rs"));
            let mut all = self.0.lock().unwrap_or_else(|all| all.into_inner());
            all.push((
                record.level,
                record.to_string(),
                here && record.line.is_some(),
            ));
        }
    }

    #[test]
    fn levels_fields_and_places_arrive_and_lines_cannot_be_forged() {
        let kept = Arc::new(Kept::default());
        let subscriber = tracing_subscriber::registry().with(layer(kept.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("not wanted");
            tracing::info!(target: "app", peer = "1.2.3.4", bytes = 7, "came");
            tracing::warn!(target: "app", said = "a\nERROR app: b\u{1b}[2J", "told");
            tracing::error!(target: "app", fatal = true, "the end");
            tracing::error!(target: "app", fatal = false, error = ?"x", "failed");
        });
        let all = kept.0.lock().expect("no panic");
        let expected = [
            (Level::Info, "INFO  app: came peer=1.2.3.4 bytes=7"),
            (
                Level::Warn,
                "WARN  app: told said=a\\nERROR app: b\\u{1b}[2J",
            ),
            (Level::Fatal, "FATAL app: the end"),
            (Level::Error, "ERROR app: failed error=\"x\""),
        ];
        let got: Vec<_> = all
            .iter()
            .map(|(level, text, _)| (*level, &**text))
            .collect();
        assert_eq!(got, expected);
        assert!(all.iter().all(|(.., place)| *place));
    }

    struct ErrorsOnly(Kept);

    impl Logger for ErrorsOnly {
        fn enabled(&self, level: Level) -> bool {
            level >= Level::Error
        }

        fn log(&self, record: &Record<'_>) {
            self.0.log(record);
        }
    }

    #[test]
    fn what_one_layer_does_not_want_is_there_for_others() {
        let few = Arc::new(ErrorsOnly(Kept::default()));
        let most = Arc::new(Kept::default());
        let subscriber = tracing_subscriber::registry()
            .with(layer(few.clone()))
            .with(layer(most.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "app", "for one");
            tracing::error!(target: "app", "for both");
        });
        let count = |kept: &Kept| kept.0.lock().expect("no panic").len();
        assert_eq!((count(&few.0), count(&most)), (1, 2));
    }
}
