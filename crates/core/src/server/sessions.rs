//! The live sessions of a server: look up, iterate, broadcast.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use network_system_wire::Framing;
use network_system_wire::envelope::Header;

use crate::close::CloseReason;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{IntoMessage, MessageRef};
use crate::out_queue::{Encoding, OneFrame};
use crate::outbox::Command;
use crate::session::Session;

/// Locks that connects and disconnects of different threads spread over.
const SHARDS: usize = 16;

type Table = HashMap<u64, Entry>;

/// The live sessions of a server: those that `on_connect` has let in. Cheap to clone; every clone
/// means the same table. Handlers reach it through [`Session::sessions`].
#[derive(Clone, Default)]
pub struct Sessions(Arc<[RwLock<Table>; SHARDS]>);

struct Entry {
    session: Session,
    /// Whether `on_connect` has let it in: others do not see it before.
    admitted: bool,
}

/// What a broadcast reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BroadcastReport {
    /// Sessions that have the message in their outbox.
    pub queued: usize,
    /// Sessions whose outbox was full: the message was dropped there (and counted), or the session
    /// is closed where that is the policy.
    pub full: usize,
    /// Sessions that ended meanwhile, or whose framing cannot carry the message.
    pub failed: usize,
}

impl Sessions {
    fn shard(&self, id: u64) -> &RwLock<Table> {
        &self.0[id as usize % SHARDS]
    }

    /// Adds a session that only the end of the server finds, until it is [admitted](Self::admit).
    pub(crate) fn insert(&self, session: Session) {
        let mut shard = self
            .shard(session.id())
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let entry = Entry {
            session,
            admitted: false,
        };
        shard.insert(entry.session.id(), entry);
    }

    /// From now on everybody finds it.
    pub(crate) fn admit(&self, id: u64) {
        let mut shard = self
            .shard(id)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = shard.get_mut(&id) {
            entry.admitted = true;
        }
    }

    pub(crate) fn remove(&self, id: u64) {
        self.shard(id)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }

    /// The session with this id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Session> {
        self.shard(id)
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .filter(|entry| entry.admitted)
            .map(|entry| entry.session.clone())
    }

    /// How many sessions are live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read()
            .map(|shard| shard.values().filter(|entry| entry.admitted).count())
            .sum()
    }

    /// Whether no session is live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read(&self) -> impl Iterator<Item = std::sync::RwLockReadGuard<'_, Table>> {
        self.0
            .iter()
            .map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All live sessions, as handles of this moment.
    #[must_use]
    pub fn all(&self) -> Vec<Session> {
        let mut all = Vec::with_capacity(self.len());
        self.collect(&mut all);
        all
    }

    fn collect(&self, all: &mut Vec<Session>) {
        for shard in self.read() {
            let admitted = shard.values().filter(|entry| entry.admitted);
            all.extend(admitted.map(|entry| entry.session.clone()));
        }
    }

    /// All sessions, those too that are not let in yet.
    pub(super) fn every(&self) -> Vec<Session> {
        let mut every = Vec::new();
        for shard in self.read() {
            every.extend(shard.values().map(|entry| entry.session.clone()));
        }
        every
    }

    /// Queues a message for every session. It is encoded once for each framing, whatever the
    /// number of sessions, and never waits: a full outbox drops it or closes its session, as the
    /// overflow policy says.
    pub fn broadcast(&self, message: impl IntoMessage) -> BroadcastReport {
        self.broadcast_if(message, |_| true)
    }

    /// As [`broadcast`](Self::broadcast), for the sessions that `wanted` picks.
    pub fn broadcast_if(
        &self,
        message: impl IntoMessage,
        wanted: impl Fn(&Session) -> bool,
    ) -> BroadcastReport {
        match message.lend(|message| self.broadcast_lent(message, &wanted)) {
            Some(report) => report,
            None => self.broadcast_lent(&message.into().by_ref(), &wanted),
        }
    }

    fn broadcast_lent(
        &self,
        message: &MessageRef<'_>,
        wanted: &dyn Fn(&Session) -> bool,
    ) -> BroadcastReport {
        let mut report = BroadcastReport::default();
        let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
        let Scratch { sessions, encoded } = &mut scratch;
        self.collect(sessions);
        for session in sessions.iter().filter(|session| wanted(session)) {
            let queued = match encoded.of(session, message) {
                Some(frame) => session.send_encoded(frame),
                None => match session.send_unencoded(message) {
                    Ok(queued) => queued,
                    Err(_) => {
                        report.failed += 1;
                        continue;
                    }
                },
            };
            if queued {
                report.queued += 1;
            } else if session.is_closed() {
                report.failed += 1;
            } else {
                report.full += 1;
                session.overflow();
            }
        }
        scratch.clear();
        // at the end of a thread it may be gone
        let _ = SCRATCH.try_with(|place| place.set(scratch));
        report
    }

    /// Closes the session with this id after what is queued has been written.
    ///
    /// # Errors
    /// [`ErrorKind::SessionNotFound`] when there is none.
    pub fn kick(&self, id: u64, reason: &str) -> Result<()> {
        match self.get(id) {
            Some(session) => {
                session.close(reason);
                Ok(())
            }
            None => Err(Error::new(ErrorKind::SessionNotFound, "close a session")
                .because(format_args!("no session has the id {id}"))),
        }
    }

    pub(crate) fn queued_bytes(&self) -> u64 {
        self.read()
            .map(|s| {
                s.values()
                    .map(|entry| entry.session.shared().outbox.bytes() as u64)
                    .sum::<u64>()
            })
            .sum()
    }

    /// Closes what is left at once.
    pub(crate) fn cut(&self) {
        for session in &self.every() {
            session.command(Command::Cut(CloseReason::Cut));
        }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sessions({})", self.len())
    }
}

/// What a broadcast needs memory for, which its thread keeps for the next one.
#[derive(Default)]
struct Scratch {
    sessions: Vec<Session>,
    encoded: Encoded,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = const {
        Cell::new(Scratch { sessions: Vec::new(), encoded: Encoded { used: 0, frames: Vec::new() } })
    };
}

/// Sessions that a thread keeps the memory to list of.
const KEPT: usize = 64 * 1024;

impl Scratch {
    fn clear(&mut self) {
        self.sessions.clear();
        self.sessions.shrink_to(KEPT);
        self.encoded.clear();
    }
}

/// One message in the encodings that were asked for so far.
#[derive(Default)]
struct Encoded {
    /// How many of `frames` are of this message; the others have memory for later ones.
    used: usize,
    frames: Vec<Form>,
}

/// One encoding of it.
struct Form {
    framing: Framing,
    envelope: bool,
    /// `None` where it has to be queued as a message.
    frame: Option<OneFrame>,
}

impl Encoded {
    /// The message as a frame for `session`; `None` when it has to be queued as a message.
    fn of(&mut self, session: &Session, message: &MessageRef<'_>) -> Option<&OneFrame> {
        let Encoding::Stream(framing) = session.encoding() else {
            return None;
        };
        let envelope = session.info().envelope;
        let used = self.frames.iter().take(self.used);
        let is_for = |form: &Form| form.envelope == envelope && form.framing == *framing;
        let place = match used.clone().position(is_for) {
            Some(place) => place,
            None => self.add(framing, envelope, message),
        };
        self.frames.get(place)?.frame.as_ref()
    }

    #[inline(never)]
    fn add(&mut self, framing: &Framing, envelope: bool, message: &MessageRef<'_>) -> usize {
        let (place, framing) = (self.used, framing.clone());
        let before = self
            .frames
            .get_mut(place)
            .and_then(|form| form.frame.take());
        let header = envelope.then_some(Header::Data);
        let frame = match &framing {
            // it may not write the same each time
            Framing::Custom(_) => None,
            _ => OneFrame::new(&framing, header, message, before).ok(),
        };
        self.frames.truncate(place);
        self.frames.push(Form {
            framing,
            envelope,
            frame,
        });
        self.used += 1;
        place
    }

    /// Forgets the message, but not all of the memory.
    fn clear(&mut self) {
        self.used = 0;
        self.frames.truncate(1);
        if let Some(form) = self.frames.first_mut() {
            form.framing = Framing::default();
            if let Some(frame) = &mut form.frame {
                frame.clear();
            }
        }
    }
}
