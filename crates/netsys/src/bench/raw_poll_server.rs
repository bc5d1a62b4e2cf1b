//! The raw server for many connections: one thread, one event loop, no object per message.

use std::io;
use std::net::TcpListener as StdListener;

use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

use super::error::{Context, Result};
use super::raw_frames::Buffer;
use super::raw_poll::{Line, Turn};
use super::raw_server::serve;
use super::verify::Tally;

const LISTENER: Token = Token(usize::MAX);

/// Serves every connection of `listener` until the process ends; calls `announce` once it can.
pub fn run(
    listener: StdListener,
    size: usize,
    announce: impl FnOnce() -> Result<()>,
) -> Result<()> {
    listener
        .set_nonblocking(true)
        .context("cannot make the listener non-blocking")?;
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new().context("cannot make an event loop")?;
    let registry = poll
        .registry()
        .try_clone()
        .context("cannot make an event loop")?;
    registry
        .register(&mut listener, LISTENER, Interest::READABLE)
        .context("cannot watch the listener")?;
    let mut server = Server {
        registry,
        lines: Slab::new(),
        buffer: Buffer::new(size),
    };
    let mut events = Events::with_capacity(256);
    announce()?;
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result.context("cannot wait for events")?,
        }
        for event in &events {
            if event.token() == LISTENER {
                server.accept(&mut listener).context("cannot accept")?;
            } else {
                server.handle(event);
            }
        }
    }
}

struct Server {
    registry: Registry,
    lines: Slab<(Line, Tally)>,
    buffer: Buffer,
}

impl Server {
    /// Accepts one connection and looks again for others: asking the listener until it has none
    /// left would cost a whole socket, made and thrown away, for each connection.
    fn accept(&mut self, listener: &mut TcpListener) -> io::Result<()> {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nodelay(true)?;
                let entry = self.lines.vacant_entry();
                let token = Token(entry.key());
                let line = Line::new(stream, token, &self.registry)?;
                entry.insert((line, Tally::default()));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        self.registry
            .reregister(listener, LISTENER, Interest::READABLE)
    }

    fn handle(&mut self, event: &Event) {
        let key = event.token().0;
        let Some((line, tally)) = self.lines.get_mut(key) else {
            return;
        };
        match turn(line, tally, &self.registry, &mut self.buffer, event) {
            Ok(true) => {}
            // A peer that resets its connection ends that connection and nothing else.
            Ok(false) | Err(_) => drop(self.lines.remove(key)),
        }
    }
}

/// Does everything that one event makes possible; returns whether the connection goes on.
fn turn(
    line: &mut Line,
    tally: &mut Tally,
    registry: &Registry,
    buffer: &mut Buffer,
    event: &Event,
) -> io::Result<bool> {
    let ends = event.is_read_closed();
    line.write_rest()?;
    // A peer that does not read is not read from: it cannot make this process grow.
    while !line.is_blocked() {
        let turn = line.read(buffer, |line, bytes| {
            serve(bytes, tally, |back| line.send(registry, back))
        })?;
        match turn {
            Turn::End => return Ok(false),
            Turn::Nothing => break,
            // The end that the event announced is behind the bytes.
            Turn::Last if !ends => break,
            Turn::Last | Turn::Again => {}
        }
    }
    Ok(true)
}
