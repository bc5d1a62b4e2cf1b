//! The admin listener of `netsys serve`: metrics, health, a JSON API and the dashboard, on an HTTP
//! server of its own.

mod access;
mod api;
mod history;
mod page;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware;
use axum::routing::{delete, get};
use network_system::config::ServerConfig;
use network_system::prelude::ServeHttp as _;
use network_system::{Address, Observer, Server};
use network_system_integrations::monitoring::Monitor;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::config::AdminSettings;
use crate::failure::{Failure, Result};
use access::Access;
use history::History;

/// Connections at once.
const CONNECTIONS: usize = 256;
/// Readers of events at once.
const READERS: usize = 64;
/// How long a start waits for the address, which the process before may still have.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running admin listener; its drop ends it.
pub struct Admin {
    address: Address,
    _server: Server,
    sampler: JoinHandle<()>,
}

/// What the answers are made from.
struct State {
    observer: Observer,
    monitor: Monitor,
    access: Access,
    history: History,
    /// The newest sample. Who reads slowly misses some: nothing waits for readers.
    latest: watch::Sender<Arc<str>>,
    readers: Arc<Semaphore>,
}

type Shared = axum::extract::State<Arc<State>>;

impl Admin {
    /// Starts it, if the settings want it. `restarted`: the process before may still have the address.
    ///
    /// # Errors
    /// The settings make no sense, or the address cannot be had.
    pub async fn start(
        settings: &AdminSettings,
        server: &ServerConfig,
        observer: Observer,
        restarted: bool,
    ) -> Result<Option<Self>> {
        let Some(listen) = settings.url() else {
            return Ok(None);
        };
        let monitor = Monitor::new();
        monitor.server("netsys", observer.clone());
        let state = Arc::new(State {
            observer,
            monitor,
            access: Access::new(settings)?,
            history: History::default(),
            latest: watch::Sender::new("".into()),
            readers: Arc::new(Semaphore::new(READERS)),
        });
        let config = ServerConfig {
            listen: vec![listen],
            workers: 0,
            max_connections: CONNECTIONS,
            tls: server.tls.clone(),
            ..ServerConfig::default()
        };
        let began = tokio::time::Instant::now();
        let server = loop {
            let builder = Server::builder().config(config.clone());
            match builder.http(router(state.clone())).start().await {
                Ok(server) => break server,
                Err(_) if restarted && began.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(Failure::connecting(&error)),
            }
        };
        let Some(address) = server.listening().first().cloned() else {
            return Ok(None);
        };
        Ok(Some(Self {
            address,
            _server: server,
            sampler: tokio::spawn(history::keep(state)),
        }))
    }

    /// Where the page is.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.sampler.abort();
    }
}

fn router(state: Arc<State>) -> Router {
    let watched = Router::new()
        .route("/metrics", get(api::metrics))
        .route("/api/statistics", get(api::statistics))
        .route("/api/sessions", get(sessions::list))
        .route("/api/sessions/{id}", delete(sessions::kick))
        .route("/api/history", get(api::history))
        .route("/api/events", get(api::events))
        .route_layer(middleware::from_fn_with_state(state.clone(), access::check));
    // nobody learns anything there but whether it works
    let health = Router::new()
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(api::ready))
        .route("/health/started", get(|| async { "started\n" }));
    page::routes(health.merge(watched)).with_state(state)
}

/// Whether only this machine can reach it.
pub fn is_loopback(address: &Address) -> bool {
    let host = address.host().trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}
