//! Listening sockets that come from another process, and that go to the next one: [`Sockets`].

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(unix)]
use std::os::fd::OwnedFd;

/// The listening sockets of a server: those that it was given when it started, and those that it
/// listens on, so that another process can be given them in turn. Every clone means the same.
///
/// A transport asks for those of its address before it makes its own, and adds what it listens on.
#[derive(Clone, Default)]
pub struct Sockets(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    given: Vec<ListeningSocket>,
    listening: Vec<ListeningSocket>,
    /// Whether another process needs the files of Unix sockets.
    files_stay: bool,
}

/// A listening socket and its name.
#[derive(Debug)]
pub struct ListeningSocket {
    /// The address that a server of this library has bound it to, [encoded](ListeningSocket::name_of);
    /// or the name that somebody else has given it.
    pub name: String,
    /// The socket.
    #[cfg(unix)]
    pub fd: OwnedFd,
}

impl ListeningSocket {
    /// The name of what is bound to `address`: its text with all but letters, digits and `-._/` as
    /// `%` and two digits, since names must not contain a colon.
    #[must_use]
    pub fn name_of(address: &crate::Address) -> String {
        let mut name = String::new();
        for byte in address.as_str().bytes() {
            match byte {
                b'-' | b'.' | b'_' | b'/' => name.push(char::from(byte)),
                _ if byte.is_ascii_alphanumeric() => name.push(char::from(byte)),
                _ => name.push_str(&format!("%{byte:02x}")),
            }
        }
        name
    }
}

impl Sockets {
    /// Sockets for a server to listen on. `files_stay`: the files of Unix sockets are still another
    /// process's.
    #[must_use]
    pub fn new(given: Vec<ListeningSocket>, files_stay: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            given,
            listening: Vec::new(),
            files_stay,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes those of the given sockets that `wanted` picks.
    pub fn take(&self, wanted: impl FnMut(&mut ListeningSocket) -> bool) -> Vec<ListeningSocket> {
        self.lock().given.extract_if(.., wanted).collect()
    }

    /// Remembers a socket that is listened on, for [`listening`](Self::listening).
    pub fn add(&self, socket: ListeningSocket) {
        self.lock().listening.push(socket);
    }

    /// Handles of the sockets that are listened on, until a drain begins.
    ///
    /// # Errors
    /// The process has too many open files.
    #[cfg(unix)]
    pub fn listening(&self) -> std::io::Result<Vec<ListeningSocket>> {
        let clone = |socket: &ListeningSocket| {
            Ok(ListeningSocket {
                name: socket.name.clone(),
                fd: socket.fd.try_clone()?,
            })
        };
        self.lock().listening.iter().map(clone).collect()
    }

    /// Whether the files of Unix sockets stay when their listeners end.
    #[must_use]
    pub fn do_files_stay(&self) -> bool {
        self.lock().files_stay
    }

    /// Says whether another process needs the files of Unix sockets.
    pub fn set_files_stay(&self, stay: bool) {
        self.lock().files_stay = stay;
    }

    /// Gives the handles up, so that the sockets end with their listeners.
    pub(crate) fn forget(&self) {
        let listening = std::mem::take(&mut self.lock().listening);
        drop(listening);
    }
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Sockets")
            .field("given", &state.given)
            .field("listening", &state.listening)
            .finish_non_exhaustive()
    }
}
