//! The table of sessions, and the end of one.

use std::cmp::Reverse;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use network_system::Session;
use serde::{Deserialize, Serialize};

use super::Shared;

/// Rows of one answer.
const MOST: usize = 1000;

/// What of the table is wanted.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    /// A part of the peer's address, of its name in TLS, or of the transport.
    search: String,
    sort: Sort,
    order: Order,
    /// From 0.
    page: usize,
    per_page: usize,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            search: String::new(),
            sort: Sort::QueuedBytes,
            order: Order::Desc,
            page: 0,
            per_page: 100,
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sort {
    Id,
    Peer,
    Age,
    MessagesIn,
    MessagesOut,
    BytesIn,
    BytesOut,
    QueuedBytes,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    Asc,
    Desc,
}

/// A page of the table.
#[derive(Serialize)]
pub struct Table {
    /// How many sessions were found, on all pages.
    total: usize,
    sessions: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    id: u64,
    peer: String,
    local: String,
    transport: &'static str,
    tls: Option<Tls>,
    age_seconds: f64,
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    messages_dropped: u64,
    queued_bytes: u64,
}

#[derive(Serialize)]
struct Tls {
    version: String,
    cipher: String,
    server_name: Option<String>,
    /// Whom the peer's certificate names.
    subject: Option<String>,
}

impl From<&Session> for Row {
    fn from(session: &Session) -> Self {
        let (info, s) = (session.info(), session.statistics());
        let tls = info.tls.as_ref().map(|tls| Tls {
            version: tls.version.to_string(),
            cipher: tls.cipher.clone(),
            server_name: tls.server_name.clone(),
            subject: tls.peer.as_ref().map(|peer| peer.subject.clone()),
        });
        Self {
            id: session.id(),
            peer: info.peer.to_string(),
            local: info.local.to_string(),
            transport: info.scheme,
            tls,
            age_seconds: s.age.as_secs_f64(),
            messages_in: s.messages_in,
            messages_out: s.messages_out,
            bytes_in: s.bytes_in,
            bytes_out: s.bytes_out,
            messages_dropped: s.messages_dropped,
            queued_bytes: s.queued_bytes,
        }
    }
}

fn matches(session: &Session, search: &str) -> bool {
    let info = session.info();
    let peer = info.tls.as_ref().and_then(|tls| tls.peer.as_ref());
    search.is_empty()
        || info.scheme == search
        || info.peer.to_string().contains(search)
        || peer.is_some_and(|peer| peer.subject.contains(search))
}

fn sort(sessions: &mut [Session], by: Sort, order: Order) {
    match by {
        Sort::Peer => sessions.sort_by_cached_key(|session| session.peer().to_string()),
        _ => sessions.sort_by_cached_key(|session| {
            let s = session.statistics();
            match by {
                Sort::Id | Sort::Peer => session.id(),
                Sort::Age => u64::try_from(s.age.as_micros()).unwrap_or(u64::MAX),
                Sort::MessagesIn => s.messages_in,
                Sort::MessagesOut => s.messages_out,
                Sort::BytesIn => s.bytes_in,
                Sort::BytesOut => s.bytes_out,
                Sort::QueuedBytes => s.queued_bytes,
            }
        }),
    }
    if order == Order::Desc {
        sessions.reverse();
    }
}

/// The sessions, slowest first unless asked otherwise.
pub async fn list(State(state): Shared, Query(wanted): Query<Wanted>) -> Json<Table> {
    let sessions = state.observer.sessions();
    let mut sessions = sessions.map_or_else(Vec::new, |sessions| sessions.all());
    // one order for those that are equal
    sessions.sort_unstable_by_key(|session| Reverse(session.id()));
    sessions.retain(|session| matches(session, &wanted.search));
    sort(&mut sessions, wanted.sort, wanted.order);
    let most = wanted.per_page.clamp(1, MOST);
    let page = sessions
        .iter()
        .skip(wanted.page.saturating_mul(most))
        .take(most);
    Json(Table {
        total: sessions.len(),
        sessions: page.map(Row::from).collect(),
    })
}

/// Closes a session at once: one that does not read would never finish.
pub async fn kick(State(state): Shared, Path(id): Path<u64>) -> (StatusCode, &'static str) {
    let sessions = state.observer.sessions();
    let Some(session) = sessions.and_then(|sessions| sessions.get(id)) else {
        return (StatusCode::NOT_FOUND, "there is no such session\n");
    };
    tracing::warn!(session = id, peer = %session.peer(), "kicked");
    session.abort();
    (StatusCode::NO_CONTENT, "")
}
