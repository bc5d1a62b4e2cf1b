//! The folder in which certificates and keys are put: [`Folder`].

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};
use crate::output;

/// A folder of `.pem` and `.key` files.
pub struct Folder {
    path: PathBuf,
    /// Whether files that are there may be replaced.
    force: bool,
}

impl Folder {
    /// The folder at `path`, which is made when it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(path: &Path, force: bool) -> Result<Self> {
        fs::create_dir_all(path)
            .map_err(|error| Failure::io(format_args!("make {}", path.display()), &error))?;
        Ok(Self {
            path: path.to_owned(),
            force,
        })
    }

    fn file(&self, name: &str, end: &str) -> PathBuf {
        self.path.join(format!("{name}.{end}"))
    }

    /// Checks that files of this name may be written.
    ///
    /// # Errors
    /// One is there already, or it is no name for a file.
    pub fn check(&self, name: &str) -> Result<()> {
        if name.is_empty() || name.eq_ignore_ascii_case("ca") || name.contains(['/', '\\', '\0']) {
            return Err(Failure::usage(format_args!(
                "'{name}' is no name for a file here"
            )));
        }
        let files = ["pem", "key"].map(|end| self.file(name, end));
        match files.iter().find(|file| is_there(file)) {
            Some(file) if !self.force => Err(Failure::usage(format_args!(
                "{} is there already; --force replaces it",
                file.display()
            ))),
            _ => Ok(()),
        }
    }

    /// The authority's certificate and key, when they are there.
    ///
    /// # Errors
    /// They cannot be read, or only one of them is there.
    pub fn authority(&self) -> Result<Option<(String, String)>> {
        let files = [self.file("ca", "pem"), self.file("ca", "key")];
        if !files.iter().any(|file| is_there(file)) {
            return Ok(None);
        }
        let [certificate, key] = files.map(|file| {
            fs::read_to_string(&file)
                .map_err(|error| Failure::io(format_args!("read {}", file.display()), &error))
        });
        Ok(Some((certificate?, key?)))
    }

    /// Writes a certificate and its key, which only the user may read.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self, name: &str, certificate: &str, key: &str) -> Result<()> {
        for (end, content, secret) in [("key", key, true), ("pem", certificate, false)] {
            let file = self.file(name, end);
            let shown = file.display();
            replace(&file, content, secret)
                .map_err(|error| Failure::io(format_args!("write {shown}"), &error))?;
            output::line(&format!("wrote {shown}"));
        }
        Ok(())
    }
}

/// Also for a link to what is not there.
fn is_there(file: &Path) -> bool {
    file.symlink_metadata().is_ok()
}

/// Puts a new file in place of the old one at once, so that nobody sees half of it.
fn replace(file: &Path, content: &str, secret: bool) -> io::Result<()> {
    let mut next = file.as_os_str().to_owned();
    next.push(".new");
    let next = PathBuf::from(next);
    // one that a run before has left would keep its rights
    let _ = fs::remove_file(&next);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if secret { 0o600 } else { 0o644 });
    #[cfg(not(unix))]
    let _ = secret;
    let mut written = options.open(&next)?;
    written.write_all(content.as_bytes())?;
    written.sync_all()?;
    fs::rename(&next, file)
}
