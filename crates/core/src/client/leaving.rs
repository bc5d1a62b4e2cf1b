//! Connections whose server has announced its end: they go on until it closes them, while the client
//! connects anew.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::task::{Task, lock};
use super::{ClientState, Shared};
use crate::close::CloseReason;
use crate::handler::Handler;
use crate::link::Transports;
use crate::outbox::Command;
use crate::session::Session;
use crate::worker;

/// What a server that announces its end and does not close may cost: the oldest of more such
/// connections is closed.
const MOST: usize = 8;

/// How long such a connection may have nothing to do before this side closes it.
const IDLE: Duration = Duration::from_secs(30);

impl Shared {
    /// Nothing more is sent over this session.
    pub(super) fn leave(&self, session: &Session) {
        let mut current = lock(&self.current);
        if current
            .as_ref()
            .is_some_and(|current| current.id() != session.id())
        {
            return;
        }
        *current = None;
        self.state.send_if_modified(|state| {
            let lost = state.is_connected();
            if lost {
                *state = ClientState::Connecting { failures: 0 };
            }
            lost
        });
    }
}

impl<T: Transports, H: Handler> Task<T, H> {
    /// Whether the server of this session can say that it leaves, and the client would go elsewhere.
    pub(super) fn may_leave(&self, session: &Session) -> bool {
        self.config.reconnect.enabled && session.info().envelope
    }

    /// Waits until the server of this session leaves and the client may connect anew, which it may
    /// not do faster than after losses.
    pub(super) async fn left(&self, session: &Session) {
        let mut leaving = self.shared.leaving.subscribe();
        // the sender lives as long as this
        let _ = leaving.wait_for(|id| *id == session.id()).await;
        // what is sent from now on waits for the next connection
        self.shared.leave(session);
        let young = self.proof().saturating_sub(session.statistics().age);
        tokio::time::sleep(young).await;
    }
}

/// Lets a connection go on in a task of its own.
pub(super) fn go_on(
    mut running: Pin<Box<impl Future<Output = CloseReason> + Send + 'static>>,
    live: Live,
) {
    let tracker = live.shared.leavers.clone();
    let _ = worker::spawn(tracker.track_future(async move {
        let mut live = live;
        let session = live.session.clone();
        let reason = tokio::select! {
            biased;
            reason = &mut running => reason,
            () = idle(&session) => {
                session.command(Command::Close(CloseReason::Shutdown));
                running.await
            }
        };
        tracing::debug!(?session, %reason, "disconnected");
        live.reason = Some(reason);
    }));
}

/// Waits until nothing has moved, and nothing was waited for, for a while.
async fn idle(session: &Session) {
    let mut moved = None;
    loop {
        let now = (
            session.activity().messages,
            session.shared().requests.is_empty(),
        );
        if moved.replace(now) == Some(now) && now.1 {
            return;
        }
        tokio::time::sleep(IDLE).await;
    }
}

/// A connection that is up, until its task ends, however it ends.
pub(super) struct Live {
    shared: Arc<Shared>,
    session: Session,
    pub(super) reason: Option<CloseReason>,
}

impl Live {
    pub(super) fn new(shared: Arc<Shared>, session: Session) -> Self {
        let mut live = lock(&shared.live);
        if live.len() > MOST
            && let Some(oldest) = live.first()
        {
            oldest.command(Command::Close(CloseReason::Shutdown));
        }
        live.push(session.clone());
        drop(live);
        Self {
            shared,
            session,
            reason: None,
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let reason = self.reason.take().unwrap_or_else(|| {
            // the task was given up: nobody may wait for the connection any more
            self.session.shut(&CloseReason::Cut);
            CloseReason::Cut
        });
        let id = self.session.id();
        lock(&self.shared.live).retain(|session| session.id() != id);
        let scheme = self.session.info().scheme;
        self.shared.counters.disconnect(&reason, scheme);
        self.session.set_ended();
    }
}
