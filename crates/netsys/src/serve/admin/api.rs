//! What is asked of the whole server: metrics, health, statistics, history and events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;

use super::Shared;
use super::history::Sample;
use crate::serve::report::Figures;

/// The page for Prometheus.
pub async fn metrics(State(state): Shared) -> impl IntoResponse {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], state.monitor.render())
}

/// Whether more work may come.
pub async fn ready(State(state): Shared) -> (StatusCode, &'static str) {
    match state.observer.is_ready() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}

#[derive(Serialize)]
struct Overview<'a> {
    version: &'static str,
    pid: u32,
    ready: bool,
    sessions: usize,
    #[serde(flatten)]
    figures: Figures<'a>,
}

/// Everything that is counted of the server.
pub async fn statistics(State(state): Shared) -> Response {
    let Some(statistics) = state.observer.statistics() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server has ended\n").into_response();
    };
    let sessions = state.observer.sessions();
    Json(Overview {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        ready: state.observer.is_ready(),
        sessions: sessions.map_or(0, |sessions| sessions.len()),
        figures: Figures::from(&statistics),
    })
    .into_response()
}

#[derive(Deserialize)]
pub struct Since {
    #[serde(default)]
    since: f64,
}

/// Samples of the last hour.
pub async fn history(State(state): Shared, Query(query): Query<Since>) -> Json<Vec<Sample>> {
    Json(state.history.since(query.since))
}

/// Each sample when it is taken. A reader who is slow misses some.
pub async fn events(State(state): Shared) -> Response {
    let Ok(permit) = state.readers.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many readers\n").into_response();
    };
    let samples = WatchStream::new(state.latest.subscribe());
    let events = samples
        .filter(|text: &Arc<str>| !text.is_empty())
        .map(move |text| {
            // until the stream is dropped
            let _ = &permit;
            Ok::<_, Infallible>(Event::default().event("sample").data(text))
        });
    let sse = Sse::new(events).keep_alive(KeepAlive::default());
    sse.into_response()
}
