//! What has happened to the sockets of a worker, as the system tells it: [`Events`].

use std::io;
use std::time::Duration;

use mio::{Poll, Token};

/// Events that one look at the system brings at most.
const MOST: usize = 256;

/// One event.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Happened {
    /// There may be something to read, or an error.
    pub(super) input: bool,
    /// There may be room to write, or an error.
    pub(super) output: bool,
    /// No more will come.
    pub(super) closed: bool,
}

#[cfg(target_os = "linux")]
pub(super) use linux::Events;
#[cfg(not(target_os = "linux"))]
pub(super) use portable::Events;

/// The wait itself without the C library, in which it can be cancelled: nobody does that, and it
/// costs two atomic operations for each wait in a process with several threads.
#[cfg(target_os = "linux")]
mod linux {
    use rustix::buffer::spare_capacity;
    use rustix::event::epoll::{self, EventFlags};
    use rustix::time::Timespec;

    use super::*;

    pub(in super::super) struct Events(Vec<epoll::Event>);

    impl Events {
        pub(in super::super) fn new() -> Self {
            Self(Vec::with_capacity(MOST))
        }

        /// Waits for events, of which those before are forgotten; without a timeout for ever.
        #[inline]
        pub(in super::super) fn wait(
            &mut self,
            poll: &mut Poll,
            timeout: Option<Duration>,
        ) -> io::Result<()> {
            self.0.clear();
            let timeout = timeout.map(whole_milliseconds);
            epoll::wait(
                poll.registry(),
                spare_capacity(&mut self.0),
                timeout.as_ref(),
            )?;
            Ok(())
        }

        pub(in super::super) fn is_empty(&self) -> bool {
            self.0.is_empty()
        }

        #[inline]
        pub(in super::super) fn iter(&self) -> impl Iterator<Item = (Token, Happened)> {
            self.0.iter().map(|event| {
                // that mio registers a token as it is, is tested below
                let token = Token(event.data.u64() as usize);
                let flags = event.flags;
                let failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
                let happened = Happened {
                    input: failed || flags.intersects(EventFlags::IN | EventFlags::PRI),
                    output: failed || flags.contains(EventFlags::OUT),
                    closed: flags.contains(EventFlags::HUP)
                        || flags.contains(EventFlags::IN | EventFlags::RDHUP),
                };
                (token, happened)
            })
        }
    }

    /// Rounded up, so that nothing waits in many steps for the end of a millisecond.
    fn whole_milliseconds(time: Duration) -> Timespec {
        let up = time.saturating_add(Duration::from_nanos(999_999));
        Timespec {
            tv_sec: i64::try_from(up.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(up.subsec_millis()) * 1_000_000,
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use super::*;

    pub(in super::super) struct Events(mio::Events);

    impl Events {
        pub(in super::super) fn new() -> Self {
            Self(mio::Events::with_capacity(MOST))
        }

        /// Waits for events, of which those before are forgotten; without a timeout for ever.
        pub(in super::super) fn wait(
            &mut self,
            poll: &mut Poll,
            timeout: Option<Duration>,
        ) -> io::Result<()> {
            poll.poll(&mut self.0, timeout)
        }

        pub(in super::super) fn is_empty(&self) -> bool {
            self.0.is_empty()
        }

        pub(in super::super) fn iter(&self) -> impl Iterator<Item = (Token, Happened)> {
            self.0.iter().map(|event| {
                let closed = event.is_read_closed();
                let failed = event.is_error();
                let happened = Happened {
                    input: event.is_readable() || closed || failed,
                    output: event.is_writable() || event.is_write_closed() || failed,
                    closed,
                };
                (event.token(), happened)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener};

    use mio::net::TcpStream;
    use mio::{Interest, Waker};

    use super::*;

    fn wait(events: &mut Events, poll: &mut Poll) -> Vec<(Token, Happened)> {
        events.wait(poll, Some(Duration::from_secs(10))).unwrap();
        events.iter().collect()
    }

    #[test]
    fn they_say_what_has_happened_and_to_whom() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let (token, both) = (Token(7_000_000), Interest::READABLE | Interest::WRITABLE);
        poll.registry().register(&mut socket, token, both).unwrap();

        let found = wait(&mut events, &mut poll);
        assert!(matches!(found[..], [(found, happened)] if found == token && happened.output));
        peer.write_all(b"x").unwrap();
        let found = wait(&mut events, &mut poll);
        assert!(
            found
                .iter()
                .any(|(found, happened)| *found == token && happened.input)
        );
        assert!(!found.iter().any(|(_, happened)| happened.closed));
        peer.shutdown(Shutdown::Write).unwrap();
        let found = wait(&mut events, &mut poll);
        assert!(
            found
                .iter()
                .any(|(_, happened)| happened.closed && happened.input)
        );
    }

    #[test]
    fn an_alarm_has_its_token_and_a_timeout_passes() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::new();
        let token = Token(usize::MAX);
        let waker = Waker::new(poll.registry(), token).unwrap();
        events
            .wait(&mut poll, Some(Duration::from_nanos(1)))
            .unwrap();
        assert!(events.is_empty());
        waker.wake().unwrap();
        let found = wait(&mut events, &mut poll);
        assert!(matches!(found[..], [(found, happened)] if found == token && happened.input));
    }
}
