//! How a drain tells and closes the sessions: who is told when, and how long each may go on; and the
//! farewell of one that is too old.

use std::collections::BTreeMap;
use std::time::Duration;

use network_system_wire::envelope::Header;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Sessions;
use crate::close::CloseReason;
use crate::outbox::Command;
use crate::session::Session;

/// What a server is doing; see [`Server::watch`](super::Server::watch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerState {
    /// It accepts connections and serves them.
    Running,
    /// It accepts none any more, and lets its sessions finish.
    Draining,
    /// All its sessions have ended.
    Stopped,
}

/// How long a session may go on after a goaway, which the peer has yet to see; and how long a new
/// connection may take to say what it came for.
const GRACE: Duration = Duration::from_secs(1);
/// When nothing has moved for this long after a goaway, nothing is on its way any more.
const QUIET: Duration = Duration::from_millis(200);
/// What a session adds to the time over which all are told: a core does about as many handshakes of
/// TLS, which those who come back need.
const PACE: Duration = Duration::from_millis(1);
/// So few sessions are told at once.
const FEW: usize = 32;

/// How long sessions may go on once they were told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grace {
    /// At most.
    pub(super) most: Duration,
    /// Without a message.
    quiet: Duration,
    /// Over which connections of other protocols are told.
    spread: Duration,
}

impl Grace {
    /// Where nothing is in a hurry.
    pub(crate) const WHOLE: Self = Self {
        most: GRACE,
        quiet: QUIET,
        spread: Duration::ZERO,
    };

    /// For a drain of at most `deadline`, of which it leaves the larger part for the end itself; the
    /// `guests` are told over `window` at most.
    pub(super) fn within(deadline: Duration, window: Duration, guests: usize) -> Self {
        let most = GRACE.min(deadline / 4);
        Self {
            most,
            quiet: QUIET.min(most / 2),
            spread: spread(window, guests),
        }
    }

    /// When one connection of another protocol is told, from now on.
    pub(super) fn turn(self) -> Duration {
        self.spread.mul_f64(fastrand::f64())
    }

    /// Lets `session` finish: announces the end where the peer understands that, waits until what
    /// was on its way must be here, and closes it for `reason`. What it has received by then is still
    /// handled.
    pub(crate) async fn farewell(self, session: Session, reason: CloseReason) {
        let went_on = self.go_on(&session, &reason);
        tokio::select! {
            biased;
            () = session.ended() => return,
            _ = tokio::time::timeout(self.most, went_on) => {}
        }
        session.command(Command::Close(reason));
    }

    /// As long as there may be something on its way.
    async fn go_on(self, session: &Session, reason: &CloseReason) {
        let step = (self.quiet / 4).max(Duration::from_millis(1));
        let mut told = !session.info().envelope;
        let mut moved = 0;
        let mut since = Instant::now();
        loop {
            if !told && session.has_greeted() {
                let why = match reason {
                    CloseReason::MaxAge => "as old as a session may get",
                    _ => "the server shuts down",
                };
                session.send_control(Header::GoAway, why.into());
                told = true;
                since = Instant::now();
            }
            let now = session.activity().messages;
            if now != moved {
                (moved, since) = (now, Instant::now());
            }
            let expected = !session.info().envelope && moved == 0;
            if told && !expected && since.elapsed() >= self.quiet {
                return;
            }
            tokio::time::sleep(step).await;
        }
    }

    /// Whether a plain session may be closed at once: its peer cannot be told, and is no newcomer
    /// whose first message is on its way.
    fn is_over(self, session: &Session) -> bool {
        let statistics = session.statistics();
        !session.info().envelope && (statistics.messages_in > 0 || statistics.age >= self.most)
    }
}

/// Tells every session of `sessions` in turn, over `window` at most, so that those who come back do
/// not come all at once. Ends when all are closed or about to be; does not wait for their ends.
pub(super) async fn tell(sessions: Vec<Session>, window: Duration, grace: Grace) {
    let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
    let window = spread(window, sessions.len());
    let began = Instant::now();
    let mut farewells = JoinSet::new();
    for (n, session) in (0_u32..).zip(sessions) {
        let due = began + window.mul_f64(f64::from(n) / f64::from(count));
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        if grace.is_over(&session) {
            session.command(Command::Close(CloseReason::Shutdown));
        } else {
            farewells.spawn(grace.farewell(session, CloseReason::Shutdown));
        }
    }
    while farewells.join_next().await.is_some() {}
}

/// The time over which `count` connections are told, `window` at most.
fn spread(window: Duration, count: usize) -> Duration {
    match count {
        0..=FEW => Duration::ZERO,
        _ => window.min(PACE.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))),
    }
}

/// Why sessions, and `guests`, had not finished at the deadline, and how many of each.
pub(super) fn unfinished(sessions: &Sessions, guests: usize) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    if guests > 0 {
        counts.insert("working", guests);
    }
    for session in sessions.every() {
        let shared = session.shared();
        let why = if shared.outbox.bytes() > 0 {
            "unread"
        } else if session.is_closed() {
            // everything was written; it only waits for the peer to close
            continue;
        } else if !shared.serving.is_idle() {
            "unanswered"
        } else {
            "working"
        };
        *counts.entry(why).or_default() += 1;
    }
    counts
}
