//! What was read from files, and is read again when they change or somebody says so: [`Reloading`].

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use network_system_core::Result;
use network_system_core::config::Pem;
use tokio::time::Instant;

/// A `T` that was made of files. When new files are bad, the old `T` stays.
///
/// It is looked whether files have changed while the `T` is being used, and not by a thread of its own:
/// what nobody uses need not be new.
pub(super) struct Reloading<T> {
    /// What it is, for the log.
    what: String,
    current: RwLock<Arc<T>>,
    load: Load<T>,
    files: Vec<PathBuf>,
    seen: Mutex<Seen>,
    interval: Option<Duration>,
}

/// Makes a new one, given the old one.
type Load<T> = Box<dyn Fn(Option<&T>) -> Result<T> + Send + Sync>;

/// When the files were looked at, and how they were.
struct Seen {
    next: Instant,
    stamps: Vec<Option<Stamp>>,
}

/// What tells one content of a file from another; `None` where it cannot be told.
type Stamp = (SystemTime, u64, u64);

impl<T> Reloading<T> {
    pub(super) fn new(
        what: String,
        files: Vec<PathBuf>,
        interval: Option<Duration>,
        load: impl Fn(Option<&T>) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        // before they are read: what changes meanwhile is read again
        let stamps = stamps(&files);
        let current = load(None)?;
        Ok(Self {
            what,
            current: RwLock::new(Arc::new(current)),
            load: Box::new(load),
            files,
            seen: Mutex::new(Seen {
                next: Instant::now() + interval.unwrap_or_default(),
                stamps,
            }),
            interval,
        })
    }

    /// What holds now.
    pub(super) fn current(&self) -> Arc<T> {
        self.look();
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Reads the files again if it is time to look and they have changed.
    fn look(&self) {
        let Some(interval) = self.interval else {
            return;
        };
        // somebody else looks, or has just looked
        let Ok(mut seen) = self.seen.try_lock() else {
            return;
        };
        let now = Instant::now();
        if now < seen.next {
            return;
        }
        seen.next = now + interval;
        let stamps = stamps(&self.files);
        if stamps != seen.stamps {
            seen.stamps = stamps;
            // the log has the error
            let _ = self.read_again();
        }
    }

    /// Reads the files again.
    pub(super) fn reload(&self) -> Result<()> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.stamps = stamps(&self.files);
        self.read_again()
    }

    fn read_again(&self) -> Result<()> {
        let old = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            current.clone()
        };
        match (self.load)(Some(&old)) {
            Ok(new) => {
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                *current = Arc::new(new);
                tracing::info!(what = %self.what, "TLS: new certificates are in use");
                Ok(())
            }
            Err(error) => {
                tracing::error!(what = %self.what, %error, "TLS: the old certificates stay in use");
                Err(error)
            }
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| stamp(file)).collect()
}

fn stamp(file: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(file).ok()?;
    #[cfg(unix)]
    let number = std::os::unix::fs::MetadataExt::ino(&meta);
    #[cfg(not(unix))]
    let number = 0;
    Some((meta.modified().ok()?, meta.len(), number))
}

/// The files among these.
pub(super) fn files<'a>(pems: impl IntoIterator<Item = &'a Pem>) -> Vec<PathBuf> {
    let paths = pems.into_iter().filter_map(Pem::path);
    paths.map(Path::to_owned).collect()
}
