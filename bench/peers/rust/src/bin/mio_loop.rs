//! The least that mio needs: a readiness loop, no futures.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use mio::net::{TcpListener, TcpStream as MioStream};
use mio::{Events, Interest, Poll, Token};
use peers::engine::{Engine, client};
use peers::frames::{Logic, READ, Server, WRITE, walk};
use peers::{args, dial, listener, ready, runtime};

struct Conn<L> {
    s: MioStream,
    l: L,
    rest: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
}

struct Bufs {
    input: Vec<u8>,
    out: Vec<u8>,
}

enum Turn {
    Wait,
    Done,
    Closed,
}

impl<L: Logic> Conn<L> {
    fn turn(&mut self, b: &mut Bufs) -> Turn {
        loop {
            while self.sent < self.out.len() {
                match self.s.write(&self.out[self.sent..]) {
                    Ok(n) => self.sent += n,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {
                        return match self.read(b) {
                            Some(_) => Turn::Wait,
                            None => Turn::Closed,
                        };
                    }
                    Err(_) => return Turn::Closed,
                }
            }
            if !self.out.is_empty() {
                self.out = Vec::new();
                self.sent = 0;
            }
            b.out.clear();
            self.l.fill(&mut b.out);
            let mut more = true;
            if b.out.is_empty() {
                match self.read(b) {
                    None => return Turn::Closed,
                    Some(m) => more = m,
                }
                if self.l.done() {
                    return Turn::Done;
                }
            }
            if !b.out.is_empty() {
                let n = match self.s.write(&b.out) {
                    Ok(n) => n,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
                    Err(_) => return Turn::Closed,
                };
                if n < b.out.len() {
                    self.out.extend_from_slice(&b.out[n..]);
                }
            }
            // a short read emptied the socket: the next edge will tell
            if !more && self.out.is_empty() {
                return Turn::Wait;
            }
        }
    }

    /// Writes behind what waits already.
    fn send(&mut self, b: &[u8]) {
        let n = if self.out.is_empty() {
            self.s.write(b).unwrap_or(0)
        } else {
            0
        };
        self.out.extend_from_slice(&b[n..]);
    }

    /// None: closed. Some(true): there may be more to read.
    fn read(&mut self, b: &mut Bufs) -> Option<bool> {
        if self.out.len() - self.sent > 4 * READ {
            return Some(true);
        }
        let have = self.rest.len();
        if have + 4096 > b.input.len() {
            b.input.resize(have * 2, 0);
        }
        b.input[..have].copy_from_slice(&self.rest);
        let room = b.input.len() - have;
        let n = match self.s.read(&mut b.input[have..]) {
            Ok(0) => return None,
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Some(false),
            Err(_) => return None,
        };
        let to = if self.out.is_empty() {
            &mut b.out
        } else {
            &mut self.out
        };
        let used = walk(&b.input[..have + n], &mut self.l, to);
        self.rest.clear();
        self.rest.extend_from_slice(&b.input[used..have + n]);
        Some(n == room)
    }
}

struct Loop {
    poll: Poll,
    events: Events,
    bufs: Bufs,
}

impl Loop {
    fn new() -> Self {
        Loop {
            poll: Poll::new().expect("an event loop"),
            events: Events::with_capacity(1024),
            bufs: Bufs {
                input: vec![0; READ],
                out: Vec::with_capacity(WRITE),
            },
        }
    }

    fn wait(&mut self) {
        let _ = self.poll.poll(&mut self.events, None);
    }
}

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

impl Engine for Loop {
    type Conn = TcpStream;

    fn dial(&mut self, port: u16) -> TcpStream {
        runtime().block_on(dial(port)).into_std().expect("a socket")
    }

    fn run<L: Logic + Unpin + Send + 'static>(
        &mut self,
        conns: Vec<(TcpStream, L)>,
        one_ends_all: bool,
    ) -> Vec<(TcpStream, L)> {
        let mut open = conns.len();
        let mut done = vec![false; open];
        let mut v: Vec<Conn<L>> = Vec::new();
        for (i, (s, l)) in conns.into_iter().enumerate() {
            let mut s = MioStream::from_std(s);
            self.poll
                .registry()
                .register(&mut s, Token(i), BOTH)
                .expect("register");
            v.push(Conn {
                s,
                l,
                rest: Vec::new(),
                out: Vec::new(),
                sent: 0,
            });
        }
        while open > 0 {
            self.wait();
            for e in self.events.iter() {
                let i = e.token().0;
                if done[i] {
                    continue;
                }
                match v[i].turn(&mut self.bufs) {
                    Turn::Wait => {}
                    Turn::Done => {
                        done[i] = true;
                        open = if one_ends_all { 0 } else { open - 1 };
                    }
                    Turn::Closed => panic!("the server closed"),
                }
            }
        }
        let back = v.into_iter().map(|mut c| {
            self.poll
                .registry()
                .deregister(&mut c.s)
                .expect("deregister");
            (c.s.into(), c.l)
        });
        back.collect()
    }
}

const LISTENER: Token = Token(usize::MAX);

fn serve(mut lp: Loop, port: u16) {
    let std = runtime()
        .block_on(async { listener(port) })
        .into_std()
        .expect("a listener");
    let mut l = TcpListener::from_std(std);
    lp.poll
        .registry()
        .register(&mut l, LISTENER, Interest::READABLE)
        .expect("register");
    let mut conns: Vec<Option<Conn<Server>>> = Vec::new();
    let mut free = Vec::new();
    // what goes to everyone: written once for all events of a wait
    let mut everyone = Vec::new();
    ready();
    loop {
        lp.wait();
        for e in lp.events.iter() {
            let i = e.token().0;
            if e.token() == LISTENER {
                while let Ok((mut s, _)) = l.accept() {
                    let k = free.pop().unwrap_or_else(|| {
                        conns.push(None);
                        conns.len() - 1
                    });
                    lp.poll
                        .registry()
                        .register(&mut s, Token(k), BOTH)
                        .expect("register");
                    conns[k] = Some(Conn {
                        s,
                        l: Server::default(),
                        rest: Vec::new(),
                        out: Vec::new(),
                        sent: 0,
                    });
                }
                continue;
            }
            let Some(c) = conns[i].as_mut() else { continue };
            if let Turn::Closed = c.turn(&mut lp.bufs) {
                conns[i] = None;
                free.push(i);
            } else if let Some(frames) = c.l.broadcast() {
                everyone.append(frames);
            }
        }
        if !everyone.is_empty() {
            conns.iter_mut().flatten().for_each(|c| c.send(&everyone));
            everyone.clear();
        }
    }
}

fn main() {
    let (a, mut lp) = (args(), Loop::new());
    if a.server {
        serve(lp, a.port);
    } else {
        client(&a, &mut lp);
    }
}
