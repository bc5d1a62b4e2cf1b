//! What is measured: the [`Case`]s, each one side of ours and what it does with messages.

use crate::handler::{BURST, LAST, frame, tally};

/// Bytes of a message whose instructions and system calls are counted.
pub const SMALL: usize = 64;

/// First byte of a message that is not the last.
const MORE: u8 = b'M';

/// One row of the measurement, over TCP: a side of ours at handler level on one worker, and plain
/// sockets at the other ends.
///
/// The other side writes what is [`given`](Self::given) and waits for all that is
/// [`expected`](Self::expected) before it writes again: one round. So what is read and written at
/// once is the same in every run, however fast the machine is and whatever else it does.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// As in the baseline.
    pub name: &'static str,
    /// Our side.
    pub ours: Ours,
    /// Messages that are under way at once on a connection, unless [`BURST`] is less.
    most: usize,
    /// Connections that take part.
    pub sessions: usize,
    /// Rounds of a measurement. More than a connection needs to come to rest: it gives up its timer
    /// after it has waited 256 times.
    pub rounds: usize,
}

/// A side, and what it does with messages.
#[derive(Clone, Copy, Debug)]
pub enum Ours {
    /// A server that takes them, and confirms the last.
    TakingServer,
    /// A client that sends them when it is asked to.
    GivingClient,
    /// A server that sends each one back.
    EchoingServer,
    /// The same, with nothing but `on_message` in its handler.
    PlainServer,
    /// A client that sends each one back: an echo in which it is the other side that began.
    EchoingClient,
    /// A server that sends each one to all sessions; what counts is what is delivered.
    BroadcastingServer,
}

impl Case {
    /// The cases, in the order in which they are measured.
    pub const ALL: [Self; 8] = [
        Self::new("stream_server", Ours::TakingServer),
        Self::new("stream_client", Ours::GivingClient),
        Self::new("echo_server", Ours::EchoingServer),
        Self::new("echo_client", Ours::EchoingClient),
        Self::new("echo_plain_server", Ours::PlainServer),
        // batches of one message: what a batch costs, which the others spread over many
        Self::new("ping_server", Ours::EchoingServer).with_most(1),
        Self::new("ping_client", Ours::EchoingClient).with_most(1),
        Self::new("broadcast_server", Ours::BroadcastingServer)
            .with_most(16)
            .with_sessions(100, 300),
    ];

    const fn new(name: &'static str, ours: Ours) -> Self {
        Self {
            name,
            ours,
            most: BURST,
            sessions: 1,
            rounds: 2000,
        }
    }

    const fn with_most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    const fn with_sessions(self, sessions: usize, rounds: usize) -> Self {
        Self {
            sessions,
            rounds,
            ..self
        }
    }

    /// The case called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|case| case.name == name)
    }

    /// Messages of a round on each connection.
    fn burst(&self, size: usize) -> usize {
        (BURST / size).min(self.most)
    }

    /// How many messages of `size` bytes are handled, or delivered, in all rounds.
    pub fn messages(&self, size: usize) -> f64 {
        (self.rounds * self.burst(size) * self.sessions) as f64
    }

    /// What the other side writes on its first connection, with messages of `size` bytes.
    pub fn given(&self, size: usize) -> Vec<u8> {
        let (last, burst) = (frame(LAST, size), self.burst(size));
        match self.ours {
            Ours::GivingClient => last,
            _ => [frame(MORE, size).repeat(burst - 1), last].concat(),
        }
    }

    /// What then comes back on each of its connections.
    pub fn expected(&self, size: usize) -> Vec<u8> {
        let burst = self.burst(size);
        match self.ours {
            Ours::TakingServer => tally(burst as u64),
            Ours::GivingClient => frame(LAST, size).repeat(burst),
            _ => self.given(size),
        }
    }
}
