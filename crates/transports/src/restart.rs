//! Restarts without a connection lost: listening sockets from systemd or the process before
//! ([`Inherited`]), and for the next one ([`Successor`]).
//!
//! Both ways use the environment that systemd uses for socket activation, `LISTEN_FDS` and
//! `LISTEN_FDNAMES`: the sockets are the file descriptors from 3 on, or from `LISTEN_FDS_FIRST_FD` on for
//! supervisors that have them elsewhere. The last descriptor that a process of
//! this library gets from another one is a datagram socket on which it says that it is ready.

use std::time::Duration;

use network_system_core::{Error, ErrorKind, Result, Sockets};

/// How the descriptor is named on which a successor says that it is ready.
#[cfg(unix)]
const READY: &str = "network-system-ready";
/// Who has started a successor; a process that has another parent has only inherited the environment.
#[cfg(unix)]
const PARENT: &str = "NETWORK_SYSTEM_PARENT";

/// What this process was given by systemd, or by the process that it replaces.
///
/// ```no_run
/// # use network_system_core::Result;
/// # use network_system_transports::{Schemes, restart::Inherited};
/// # async fn run() -> Result<()> {
/// let inherited = Inherited::from_env()?;
/// let server = network_system_core::Server::<Schemes>::builder()
///     .listen("tcp://0.0.0.0:8080")
///     .inherit(inherited.sockets())
///     .start()
///     .await?;
/// inherited.ready()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Sockets,
    #[cfg(unix)]
    ready: Option<std::os::unix::net::UnixDatagram>,
}

impl Inherited {
    /// The sockets for an address are those that the process before has bound for the same text, else
    /// those whose local address it is. Nothing was given on systems other than Unix.
    #[must_use]
    pub fn sockets(&self) -> Sockets {
        self.sockets.clone()
    }

    /// Takes what this process was given; nothing, where `LISTEN_PID` or the parent says that it was
    /// meant for another one. Call it once, at the start, before there are other threads: it changes
    /// the environment, so that processes that are started later do not take it for theirs.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] names a descriptor that is no stream socket.
    #[cfg(unix)]
    pub fn from_env() -> Result<Self> {
        use network_system_core::ListeningSocket;
        use socket2::SockRef;

        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').filter(|name| !name.is_empty());
        let parent = std::env::var(PARENT).ok();
        let first = std::env::var("LISTEN_FDS_FIRST_FD").ok();
        let first: usize = first.and_then(|fd| fd.parse().ok()).unwrap_or(3);
        let mut given = listenfd::ListenFd::from_env();
        let own_parent = std::os::unix::process::parent_id().to_string();
        let is_stranger = parent.is_some_and(|parent| parent != own_parent);
        if is_stranger {
            return Ok(Self::default());
        }
        let mut sockets = Vec::new();
        let mut ready = None;
        for n in 0..given.len() {
            let wrong = |error: std::io::Error| {
                Error::new(
                    ErrorKind::InvalidArgument,
                    "listen on the sockets that were given",
                )
                .because(format_args!("file descriptor {}: {error}", first + n))
            };
            let name = names.next().unwrap_or("unknown").to_owned();
            if name == READY {
                ready = given.take_unix_datagram(n).map_err(wrong)?;
                continue;
            }
            let fd = match given.take_tcp_listener(n) {
                Ok(socket) => socket.map(std::os::fd::OwnedFd::from),
                Err(_) => given.take_unix_listener(n).map_err(wrong)?.map(Into::into),
            };
            let Some(fd) = fd else { continue };
            if !SockRef::from(&fd).is_listener().map_err(wrong)? {
                let error = std::io::Error::other("it does not listen");
                return Err(wrong(error).advice("a socket unit needs `Accept=no`"));
            }
            sockets.push(ListeningSocket { name, fd });
        }
        Ok(Self {
            // until this process is ready, the other one needs its files
            sockets: Sockets::new(sockets, ready.is_some()),
            ready,
        })
    }

    /// There are none on this system.
    ///
    /// # Errors
    /// None.
    #[cfg(not(unix))]
    pub fn from_env() -> Result<Self> {
        Ok(Self::default())
    }

    /// Whether another process waits for this one to be [ready](Self::ready), and ends then.
    #[must_use]
    pub fn is_successor(&self) -> bool {
        #[cfg(unix)]
        return self.ready.is_some();
        #[cfg(not(unix))]
        false
    }

    /// Tells the process before, where there is one, that this one serves. From now on the files of
    /// Unix sockets are this one's.
    ///
    /// # Errors
    /// The other process does not wait any more.
    pub fn ready(self) -> Result<()> {
        #[cfg(unix)]
        if let Some(ready) = self.ready {
            ready
                .send(b"READY=1")
                .map_err(|error| Error::from_io("tell the process before", error))?;
            self.sockets.set_files_stay(false);
        }
        Ok(())
    }
}

/// A process that is to replace this one, and starts up.
#[derive(Debug)]
pub struct Successor {
    #[cfg(unix)]
    child: std::process::Child,
    #[cfg(unix)]
    ready: std::os::unix::net::UnixDatagram,
    #[cfg(unix)]
    sockets: Sockets,
    /// Whether it was ready, and is no matter of this process any more.
    #[cfg(unix)]
    is_free: bool,
    #[cfg(not(unix))]
    never: std::convert::Infallible,
}

impl Successor {
    /// Starts `command`, which gets the sockets that a server listens on (see
    /// [`Server::sockets`](network_system_core::Server::sockets)). This process goes on to serve; when
    /// the other one [is ready](Self::ready), shut it down.
    ///
    /// # Errors
    /// The program cannot be started, or there are too many open files.
    /// [`ErrorKind::InvalidArgument`] in a process with the number 1, at whose end its container ends.
    #[cfg(unix)]
    pub fn start(mut command: std::process::Command, sockets: &Sockets) -> Result<Self> {
        use command_fds::{CommandFdExt, FdMapping};
        use std::os::fd::{AsRawFd, OwnedFd};

        let failed =
            |error: std::io::Error| Error::from_io("start the process that takes over", error);
        if std::process::id() == 1 {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "start the process that takes over",
            )
            .because("this process has the number 1: at its end all others of its container end")
            .advice("run it under an init such as `tini`, or start another container"));
        }
        let (ready, theirs) = std::os::unix::net::UnixDatagram::pair().map_err(failed)?;
        let mut names = Vec::new();
        let mut given: Vec<OwnedFd> = Vec::new();
        for socket in sockets.listening().map_err(failed)? {
            names.push(socket.name);
            given.push(socket.fd);
        }
        names.push(READY.to_owned());
        given.push(theirs.into());
        let count = given.len();
        // the descriptors that they become in the other process are taken here, so that none of them
        // is the one over which it says why it cannot be started
        let mut taken: Vec<OwnedFd> = Vec::new();
        loop {
            let next = ready.try_clone().map_err(failed)?;
            let is_above = usize::try_from(next.as_raw_fd()).is_ok_and(|fd| fd >= 3 + count);
            taken.push(next.into());
            if is_above {
                break;
            }
        }
        let mappings = (3..).zip(given);
        let mappings = mappings.map(|(child_fd, parent_fd)| FdMapping {
            parent_fd,
            child_fd,
        });
        command
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS_FIRST_FD")
            .env("LISTEN_FDS", count.to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env(PARENT, std::process::id().to_string())
            .fd_mappings(mappings.collect())
            .map_err(|error| failed(std::io::Error::other(error)))?;
        let child = command.spawn().map_err(failed)?;
        drop(taken);
        Ok(Self {
            child,
            ready,
            sockets: sockets.clone(),
            is_free: false,
        })
    }

    /// Sockets cannot be given to another process here.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], always.
    #[cfg(not(unix))]
    pub fn start(_: std::process::Command, _: &Sockets) -> Result<Self> {
        Err(Error::new(
            ErrorKind::InvalidArgument,
            "start the process that takes over",
        )
        .because("sockets can be given to another process on Unix only"))
    }

    /// The number of the other process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        #[cfg(unix)]
        return self.child.id();
        #[cfg(not(unix))]
        match self.never {}
    }

    /// Waits until the other process is ready, for at most `timeout`; from then on it is on its own. One
    /// that is not is ended, also when this call is given up.
    ///
    /// # Errors
    /// How it has ended, or that it took too long. This process can go on as if nothing had been.
    #[cfg(unix)]
    pub async fn ready(mut self, timeout: Duration) -> Result<()> {
        let failed = |why: String| {
            Error::new(ErrorKind::Internal, "start the process that takes over").because(why)
        };
        let io = |error| Error::from_io("wait for the process that takes over", error);
        self.ready.set_nonblocking(true).map_err(io)?;
        let until = tokio::time::Instant::now() + timeout;
        let mut wait = Duration::from_millis(2);
        loop {
            // it may say so and end
            let ended = self.child.try_wait().map_err(io)?;
            if matches!(self.ready.recv(&mut [0; 64]), Ok(n) if n > 0) {
                self.is_free = true;
                self.sockets.set_files_stay(true);
                return Ok(());
            }
            if let Some(status) = ended {
                return Err(failed(format!(
                    "it has ended before it was ready: {status}"
                )));
            }
            if tokio::time::Instant::now() > until {
                return Err(failed(format!("it was not ready within {timeout:?}")));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(50));
        }
    }

    /// Cannot be called: there is none.
    ///
    /// # Errors
    /// None.
    #[cfg(not(unix))]
    pub async fn ready(self, _: Duration) -> Result<()> {
        match self.never {}
    }
}

#[cfg(unix)]
impl Drop for Successor {
    fn drop(&mut self) {
        if !self.is_free {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
