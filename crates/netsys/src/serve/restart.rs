//! Handing over to a new process of the same program, and what systemd is told.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use network_system::restart::Successor;
use network_system::{Result, Sockets};

use crate::signals::{Asked, Signals};

/// How long the new process may take until it serves.
const START: Duration = Duration::from_secs(30);

/// How this process was started.
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// How a restart has ended.
pub enum Outcome {
    /// With the number of the new process, or with what was wrong with it.
    Done(Result<u32>),
    /// This process was asked to end meanwhile; the new one was ended.
    Ended,
}

impl Program {
    /// By the name that it was called by, and not by the file that this is: a link may point to a newer
    /// one by then.
    pub fn of_this_process() -> Self {
        let mut arguments = std::env::args_os();
        let name = PathBuf::from(arguments.next().unwrap_or_default());
        // looked for along PATH where it is a name only; else the folder may change
        let path = match std::path::absolute(&name) {
            Ok(path) if name.components().count() > 1 => path,
            _ => name,
        };
        Self {
            path,
            arguments: arguments.collect(),
        }
    }

    /// Starts a new process and waits until it serves. Asking again meanwhile changes nothing.
    pub async fn restart(&self, sockets: &Sockets, signals: &mut Signals) -> Outcome {
        notify(Notice::Reloading);
        let outcome = self.try_restart(sockets, signals).await;
        if let Outcome::Done(result) = &outcome {
            match result {
                // from here on systemd watches the new one
                Ok(pid) => notify(Notice::Replaced(*pid)),
                Err(_) => notify(Notice::Ready),
            }
        }
        outcome
    }

    async fn try_restart(&self, sockets: &Sockets, signals: &mut Signals) -> Outcome {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments);
        let successor = match Successor::start(command, sockets) {
            Ok(successor) => successor,
            Err(error) => return Outcome::Done(Err(error)),
        };
        let pid = successor.pid();
        let ended = async { while signals.asked().await != Asked::End {} };
        tokio::select! {
            biased;
            result = successor.ready(START) => Outcome::Done(result.map(|()| pid)),
            () = ended => Outcome::Ended,
        }
    }
}

/// What systemd is told, where it has started this process.
#[derive(Clone, Copy)]
pub enum Notice {
    /// It serves.
    Ready,
    /// A new process starts.
    Reloading,
    /// The new process, which serves.
    Replaced(u32),
    /// It ends.
    Stopping,
}

/// Tells it.
#[cfg(unix)]
pub fn notify(notice: Notice) {
    use sd_notify::NotifyState;
    let result = match notice {
        Notice::Ready => sd_notify::notify(&[NotifyState::Ready]),
        Notice::Reloading => NotifyState::monotonic_usec_now()
            .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])),
        Notice::Replaced(pid) => {
            sd_notify::notify(&[NotifyState::MainPid(pid), NotifyState::Ready])
        }
        Notice::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
    };
    if let Err(error) = result {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

/// There is none on this system.
#[cfg(not(unix))]
pub fn notify(_: Notice) {}
