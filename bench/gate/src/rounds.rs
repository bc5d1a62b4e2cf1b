//! Runs a [`Case`]: starts our side on its worker, and is the other side with blocking sockets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use network_system::{Backoff, Client, Handler, Server, Workers};
use tokio::runtime::Runtime;

use crate::Result;
use crate::cases::{Case, Ours};
use crate::handler::{Broadcast, Doing, Echo, Give, PlainEcho, Take};

/// How long nothing may come before a measurement has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// An empty message on the wire.
const EMPTY: [u8; 4] = [0; 4];

/// A case that is ready for its rounds.
pub struct Rounds {
    sockets: Vec<TcpStream>,
    given: Vec<u8>,
    expected: Vec<u8>,
    came: Vec<u8>,
    /// Our side, and what it was started in.
    _ours: (Side, Runtime),
}

/// Keeps our side alive.
enum Side {
    Server(#[expect(dead_code, reason = "kept alive")] Server),
    Client(#[expect(dead_code, reason = "kept alive")] Client),
}

impl Rounds {
    /// Starts `case` with messages of `size` bytes.
    pub fn start(case: &Case, size: usize) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (side, sockets) = runtime.block_on(async {
            let sessions = case.sessions;
            match case.ours {
                Ours::TakingServer => serve(Doing(Take::default()), sessions).await,
                Ours::EchoingServer => serve(Doing(Echo), sessions).await,
                Ours::PlainServer => serve(PlainEcho, sessions).await,
                Ours::BroadcastingServer => serve(Broadcast, sessions).await,
                Ours::GivingClient => connect(Doing(Give)),
                Ours::EchoingClient => connect(Doing(Echo)),
            }
        })?;
        let expected = case.expected(size);
        Ok(Self {
            sockets,
            given: case.given(size),
            came: vec![0; expected.len()],
            expected,
            _ours: (side, runtime),
        })
    }

    /// Runs `count` rounds. Fails when anything else comes back than what should.
    pub fn run(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let first = self.sockets.first_mut().ok_or("no connection")?;
            first.write_all(&self.given)?;
            for socket in &mut self.sockets {
                socket
                    .read_exact(&mut self.came)
                    .map_err(|error| format!("not all that was expected came back: {error}"))?;
                if self.came != self.expected {
                    return Err("something else came back than what was expected".into());
                }
            }
        }
        Ok(())
    }
}

/// A server, and `count` connections to it.
async fn serve<H: Handler>(handler: H, count: usize) -> Result<(Side, Vec<TcpStream>)> {
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .workers(1)
        .handler(handler)
        .start()
        .await?;
    let local = server.listening().first().ok_or("no address")?.to_string();
    let local = local.strip_prefix("tcp://").unwrap_or(&local);
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let mut socket = prepared(TcpStream::connect(local)?)?;
        if count > 1 {
            // one after another, and who has answered is in the table of sessions
            socket.write_all(&EMPTY)?;
            socket.read_exact(&mut [0; EMPTY.len()])?;
        }
        sockets.push(socket);
    }
    Ok((Side::Server(server), sockets))
}

/// A client, and its connection.
fn connect<H: Handler>(handler: H) -> Result<(Side, Vec<TcpStream>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = Client::builder(format!("tcp://{}", listener.local_addr()?))
        .reconnect(Backoff::never())
        .workers(&Workers::new(1)?)
        .handler(handler)
        .start()?;
    let (socket, _) = listener.accept()?;
    Ok((Side::Client(client), vec![prepared(socket)?]))
}

fn prepared(socket: TcpStream) -> Result<TcpStream> {
    // a round waits for nothing but the other side
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_delivers_what_it_says() {
        for case in Case::ALL {
            for size in [64, 1024] {
                let mut rounds = Rounds::start(&case, size).unwrap();
                rounds
                    .run(3)
                    .unwrap_or_else(|error| panic!("{}, {size}: {error}", case.name));
            }
        }
    }

    #[test]
    fn a_message_that_is_missing_is_found() {
        let case = Case::named("stream_server").unwrap();
        let mut rounds = Rounds::start(&case, 64).unwrap();
        rounds.given.drain(..EMPTY.len() + 64);
        let error = rounds.run(1).unwrap_err().to_string();
        assert!(error.contains("something else"), "{error}");
    }
}
