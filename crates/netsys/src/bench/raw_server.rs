//! The raw server: one blocking thread for a single connection, epoll for many.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::error::{Context, Error, Result};
use super::plan::Workload;
use super::raw_frames::{Inbox, PREFIX, frame, whole};
use super::raw_poll_server;
use super::roles::{ServerArgs, ready};
use super::verify::{COUNT, ECHO, Tally};

/// Serves until the process ends.
pub fn run(args: &ServerArgs) -> Result<()> {
    let address = address(&args.listen)?;
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    let local = listener.local_addr().context("cannot tell the address")?;
    let announce = || ready(&format!("tcp://{local}"));
    match args.workload {
        Workload::Stream | Workload::Echo | Workload::Ping => {
            announce()?;
            blocking(&listener, args.size)
        }
        Workload::Many | Workload::Connect | Workload::Idle => {
            raw_poll_server::run(listener, args.size, announce)
        }
    }
}

/// The address in a `tcp://` URL: the raw programs speak nothing else.
pub fn address(url: &str) -> Result<&str> {
    url.strip_prefix("tcp://").ok_or_else(|| {
        Error::Usage(format!(
            "raw sockets need an address such as tcp://127.0.0.1:8080, not {url}"
        ))
    })
}

fn blocking(listener: &TcpListener, size: usize) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().context("cannot accept")?;
        thread::Builder::new()
            .stack_size(128 * 1024)
            .spawn(move || {
                if let Err(error) = connection(stream, size) {
                    eprintln!("raw server: {error}");
                }
            })
            .context("cannot start a thread")?;
    }
}

fn connection(mut stream: TcpStream, size: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut inbox = Inbox::new(size);
    let mut tally = Tally::default();
    while inbox.fill(&mut stream)? > 0 {
        let used = serve(inbox.unread(), &mut tally, |bytes| stream.write_all(bytes))?;
        inbox.consume(used);
    }
    Ok(())
}

/// Handles every complete frame of `bytes`; returns how many bytes they are.
///
/// Messages that go back are handed to `send` where they lie, as many in one call as possible.
#[inline]
pub fn serve(
    bytes: &[u8],
    tally: &mut Tally,
    mut send: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<usize> {
    // bytes[back..used] are frames to send back.
    let (mut back, mut used) = (0, 0);
    while let Some(rest) = bytes.get(used..) {
        let Some(length) = whole(rest) else { break };
        let Some(message) = rest.get(PREFIX..PREFIX + length) else {
            break;
        };
        let end = used + PREFIX + length;
        match message.first() {
            Some(&ECHO) => {}
            Some(&COUNT) => {
                flush(bytes, back, used, &mut send)?;
                tally.add(message);
                back = end;
            }
            _ => {
                flush(bytes, back, used, &mut send)?;
                send(&frame(&tally.answer()))?;
                back = end;
            }
        }
        used = end;
    }
    flush(bytes, back, used, &mut send)?;
    Ok(used)
}

#[inline]
fn flush(
    bytes: &[u8],
    start: usize,
    end: usize,
    send: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    match bytes.get(start..end) {
        Some(run) if !run.is_empty() => send(run),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::raw_frames::pack;
    use crate::bench::verify::{Pattern, request};

    #[test]
    fn echoes_go_back_in_one_piece_and_in_order_with_answers() {
        let echo = pack(&Pattern::new(ECHO, 40).unwrap(), 3);
        let count = pack(&Pattern::new(COUNT, 50).unwrap(), 2);
        let input = [&echo[..], &count, &frame(&request()), &echo, &echo[..20]].concat();
        let mut tally = Tally::default();
        let mut sent = Vec::new();
        let used = serve(&input, &mut tally, |bytes| {
            sent.push(bytes.to_vec());
            Ok(())
        });
        assert_eq!(used.unwrap(), input.len() - 20);
        tally.confirm(&Pattern::new(COUNT, 50).unwrap(), 2).unwrap();
        assert_eq!(sent, [echo.clone(), frame(&tally.answer()), echo]);
    }
}
