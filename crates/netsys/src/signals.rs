//! Being asked to end: Ctrl-C, and SIGTERM on Unix; to read files again: SIGHUP; to hand over to a new
//! process: SIGUSR2.

use std::io;

/// Signals that ask the process to end. While this exists they do not end it by themselves.
pub struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
    #[cfg(unix)]
    restart: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
    #[cfg(windows)]
    terminate: tokio::signal::windows::CtrlBreak,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To end.
    End,
    /// To read files again.
    #[cfg_attr(not(unix), expect(dead_code, reason = "there is no such signal"))]
    Reload,
    /// To hand over to a new process.
    #[cfg_attr(not(unix), expect(dead_code, reason = "there is no such signal"))]
    Restart,
}

impl Signals {
    /// Starts to listen, inside a runtime.
    ///
    /// # Errors
    /// The system does not let the runtime watch signals.
    pub fn new() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
                hangup: signal(SignalKind::hangup())?,
                restart: signal(SignalKind::user_defined2())?,
            })
        }
        #[cfg(windows)]
        {
            use tokio::signal::windows::{ctrl_break, ctrl_c};
            Ok(Self {
                interrupt: ctrl_c()?,
                terminate: ctrl_break()?,
            })
        }
    }

    /// Waits for the next one, to end or to read files again.
    pub async fn asked(&mut self) -> Asked {
        #[cfg(unix)]
        {
            let Self {
                interrupt,
                terminate,
                hangup,
                restart,
            } = self;
            tokio::select! {
                _ = interrupt.recv() => Asked::End,
                _ = terminate.recv() => Asked::End,
                _ = hangup.recv() => Asked::Reload,
                _ = restart.recv() => Asked::Restart,
            }
        }
        #[cfg(not(unix))]
        {
            self.next().await;
            Asked::End
        }
    }

    /// Waits for the next one to end.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
