//! The deadlines of one connection: idle time and heartbeats, the first byte, slow readers and age,
//! with a single timer that is set anew only when it fires.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::config::SessionConfig;
use crate::ticker::TICK;

/// Waits after which a connection is busy, unless its timer, where it needs one, had fired in between.
const BUSY: u32 = 256;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing has moved for the idle time.
    Idle,
    /// The peer has been silent for a heartbeat interval: ask it.
    Ping,
    /// The peer has not answered: it is dead.
    Dead,
    /// The peer has not said anything at all.
    Silent,
    /// The peer has not read what it should have.
    Slow,
    /// The connection is as old as it may get; due once.
    Old,
}

/// One timer, made when it is first needed.
pub(crate) type Timer = Option<Pin<Box<Sleep>>>;

/// The deadlines of one connection.
pub(crate) struct Clock {
    timer: Timer,
    /// How often the connection has waited since the timer was set.
    waits: u32,
    /// Whether it is busy, and somebody else tells when it no longer is.
    watched: bool,
    idle: Option<Duration>,
    heartbeat: Option<Duration>,
    missed_most: u32,
    missed: u32,
    /// How long the peer may take for its first byte, and until when; `None` once it has come.
    first: Option<(Duration, Instant)>,
    /// Until when the peer must have read more of what waits for it.
    slow_at: Option<Instant>,
    /// When the connection is as old as it may get.
    old_at: Option<Instant>,
    /// When a message last moved, either way.
    active: Instant,
    /// When the peer was last heard, or asked.
    heard: Instant,
}

impl Clock {
    /// The deadlines of `config`, of a connection with an envelope or without; `pings` where the
    /// transport has them itself.
    pub(crate) fn new(config: &SessionConfig, envelope: bool, pings: bool) -> Self {
        let now = Instant::now();
        Self {
            timer: None,
            waits: 0,
            watched: false,
            idle: config.idle_timeout,
            heartbeat: config.heartbeat.interval.filter(|_| envelope || pings),
            missed_most: config.heartbeat.missed,
            missed: 0,
            first: config
                .limits
                .first(envelope)
                .and_then(|first| Some((first, now.checked_add(first)?))),
            slow_at: None,
            old_at: None,
            active: now,
            heard: now,
        }
    }

    /// The peer was heard.
    #[inline]
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.missed = 0;
        self.first = None;
    }

    /// The peer was not listened to up to now, so it can be no fault of its that it was not heard.
    pub(crate) fn deaf(&mut self) {
        if let Some((first, at)) = &mut self.first {
            *at = Instant::now().checked_add(*first).unwrap_or(*at);
        }
        if self.heartbeat.is_some() {
            (self.heard, self.missed) = (Instant::now(), 0);
        }
    }

    /// Nothing is read from the peer before `until`: it is neither idle nor dead meanwhile.
    #[cold]
    pub(crate) fn paused(&mut self, until: Instant) {
        self.heard = self.heard.max(until);
        self.active = self.active.max(until);
        self.missed = 0;
    }

    /// When the connection is as old as it may get.
    pub(crate) fn set_old(&mut self, at: Option<Instant>) {
        self.old_at = at;
    }

    /// Whether the peer must have read more by now.
    #[cold]
    pub(crate) fn is_slow(&self) -> bool {
        self.slow_at.is_some_and(|at| at <= Instant::now())
    }

    /// Until when the peer must have read more.
    #[cold]
    pub(crate) fn set_slow(&mut self, at: Option<Instant>) {
        self.slow_at = at;
        if let (Some(at), Some(timer)) = (at, &mut self.timer)
            && at < timer.deadline()
        {
            // all other deadlines only ever move away
            timer.as_mut().reset(at);
        }
    }

    /// A message moved.
    #[inline]
    pub(crate) fn active(&mut self, now: Instant) {
        self.active = now;
    }

    /// When the idle time is over; a time that no clock reaches is never.
    fn idle_at(&self) -> Option<Instant> {
        self.idle.and_then(|idle| self.active.checked_add(idle))
    }

    /// Whether the idle time is over, for a task that does nothing but write; `timer` is its own.
    pub(crate) fn poll_idle(&self, cx: &mut Context<'_>, timer: &mut Timer) -> Poll<Due> {
        let Some(at) = self.idle_at() else {
            return Poll::Pending;
        };
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).map(|()| Due::Idle)
    }

    fn next(&self) -> Option<Instant> {
        let first = self.first.map(|(_, at)| at);
        let all = [
            self.idle_at(),
            self.beat_at(),
            first,
            self.slow_at,
            self.old_at,
        ];
        all.into_iter().flatten().min()
    }

    /// When the peer is to be asked whether it is there.
    fn beat_at(&self) -> Option<Instant> {
        self.heartbeat.and_then(|beat| self.heard.checked_add(beat))
    }

    /// Counts a wait; whether there were so many that a timer costs more than to be watched.
    #[inline]
    pub(crate) fn is_busy(&mut self) -> bool {
        self.waits = self.waits.saturating_add(1);
        // who must still say something needs the timer
        self.waits >= BUSY && self.first.is_none()
    }

    /// Somebody else tells when the connection is no longer busy: it needs no timer until then.
    pub(crate) fn set_watched(&mut self, watched: bool) {
        self.watched = watched;
        self.waits = 0;
        if watched {
            self.timer = None;
        }
    }

    /// Somebody has told that it is no longer busy: for a tick at least nothing has moved.
    pub(crate) fn set_quiet(&mut self) {
        self.set_watched(false);
        let now = Instant::now();
        let quiet = now.checked_sub(TICK).unwrap_or(now);
        self.active = self.active.max(quiet);
        self.heard = self.heard.max(quiet);
    }

    /// Whether somebody else watches it.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.watched
    }

    /// What is due next; pending (and the task will be woken) when nothing is yet.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        if self.watched {
            return Poll::Pending;
        }
        loop {
            let Some(next) = self.next() else {
                return Poll::Pending;
            };
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if next > now {
                // something has moved since the timer was set
                timer.as_mut().reset(next);
                self.waits = 0;
                continue;
            }
            if let Some(due) = self.end(now) {
                return Poll::Ready(due);
            }
            if self.missed >= self.missed_most {
                return Poll::Ready(Due::Dead);
            }
            self.missed += 1;
            self.heard = now;
            return Poll::Ready(Due::Ping);
        }
    }

    /// What is due that ends the connection.
    fn end(&mut self, now: Instant) -> Option<Due> {
        let over = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if over(self.idle_at()) {
            return Some(Due::Idle);
        }
        if over(self.first.map(|(_, at)| at)) {
            return Some(Due::Silent);
        }
        if over(self.slow_at) {
            return Some(Due::Slow);
        }
        if over(self.old_at) {
            self.old_at = None;
            return Some(Due::Old);
        }
        None
    }
}
