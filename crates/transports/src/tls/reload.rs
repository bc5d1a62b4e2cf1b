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
    /// Why they could not be used the last time. It is tried again even if they look the same: the
    /// cause may have been their rights, or that this process had too many files open.
    failed: Option<String>,
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
                failed: None,
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
            seen.failed = None;
        } else if seen.failed.is_none() {
            return;
        }
        // the log has the error
        let _ = self.read_again(&mut seen);
    }

    /// Reads the files again.
    pub(super) fn reload(&self) -> Result<()> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.stamps = stamps(&self.files);
        seen.failed = None;
        self.read_again(&mut seen)
    }

    fn read_again(&self, seen: &mut Seen) -> Result<()> {
        let old = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            current.clone()
        };
        match (self.load)(Some(&old)) {
            Ok(new) => {
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                *current = Arc::new(new);
                seen.failed = None;
                tracing::info!(what = %self.what, "TLS: new certificates are in use");
                Ok(())
            }
            Err(error) => {
                let why = error.to_string();
                // not at every try
                if seen.failed.as_ref() != Some(&why) {
                    tracing::error!(what = %self.what, %error, "TLS: the old certificates stay in use");
                    seen.failed = Some(why);
                }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // as tests may
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::super::material::wrong;
    use super::*;

    /// What cannot be read for a while is read when it can be, although the files look the same.
    #[tokio::test(start_paused = true)]
    async fn a_failure_that_passes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::fs::write(&file, "1").unwrap();
        let tries = AtomicU32::new(0);
        let load = {
            let file = file.clone();
            move |_: Option<&String>| {
                // the second and the third time
                match tries.fetch_add(1, Relaxed) {
                    1 | 2 => Err(wrong("too many open files")),
                    _ => Ok(std::fs::read_to_string(&file).unwrap()),
                }
            }
        };
        let second = Duration::from_secs(1);
        let it = Reloading::new(String::new(), vec![file.clone()], Some(second), load).unwrap();
        std::fs::write(&file, "22").unwrap();
        for expected in ["1", "1", "22", "22"] {
            tokio::time::advance(second).await;
            assert_eq!(*it.current(), expected);
        }
        std::fs::write(&file, "333").unwrap();
        it.reload().unwrap();
        assert_eq!(*it.current(), "333");
    }
}
