//! Metrics of servers, clients, pools, breakers and threads, on one page for Prometheus: [`Monitor`].

mod families;
mod page;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use network_system_core::threads::ThreadPool;
use network_system_core::{
    CircuitBreaker, Error, ErrorKind, Observer, PoolObserver, RequestPoolObserver, Result,
};

pub use families::{FAMILIES, Family, Kind};
use page::Page;

/// What there is to see of an application, under names that the application chooses. Cheap to clone; every
/// clone means the same.
///
/// It asks only when it is asked: no message costs more because of it. Nothing that it knows is kept
/// alive by it, but for breakers, and what has ended is no longer on the page.
///
/// ```
/// use network_system_integrations::monitoring::Monitor;
///
/// # async fn run() -> network_system::Result<()> {
/// let server = network_system::Server::builder().listen("tcp://127.0.0.1:0").start().await?;
/// let monitor = Monitor::new();
/// monitor.server("chat", server.observer());
/// println!("{}", monitor.render());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Monitor(Arc<Inner>);

struct Inner {
    watched: Mutex<Watched>,
    /// What users measure themselves, and the figures of the process.
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

/// What is on the page, by name.
#[derive(Default)]
struct Watched {
    servers: BTreeMap<String, Observer>,
    clients: BTreeMap<String, Observer>,
    pools: BTreeMap<String, PoolObserver>,
    request_pools: BTreeMap<String, RequestPoolObserver>,
    breakers: BTreeMap<String, CircuitBreaker>,
    thread_pools: BTreeMap<String, Weak<dyn ThreadPool>>,
}

impl Monitor {
    /// One that knows nothing but the process yet.
    #[must_use]
    pub fn new() -> Self {
        let recorder = Arc::new(PrometheusBuilder::new().build_recorder());
        let process = metrics_process::Collector::default();
        metrics::with_local_recorder(&recorder, || process.describe());
        Self(Arc::new(Inner {
            watched: Mutex::default(),
            handle: recorder.handle(),
            recorder,
            process,
        }))
    }

    /// Makes this the recorder of the facade `metrics` of the whole process: what the application and
    /// other libraries measure with it joins the page. Then call [`render`](Self::render) from time to
    /// time, as a scrape does: until then each value of a histogram is kept.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when there is a recorder already.
    pub fn install(&self) -> Result<()> {
        metrics::set_global_recorder(self.0.recorder.clone()).map_err(|error| {
            Error::new(ErrorKind::AlreadyExists, "install the recorder of metrics").because(error)
        })
    }

    /// Shows a server. One name is one server; another one under the same name takes its place.
    pub fn server(&self, name: impl Into<String>, server: Observer) {
        self.watched().servers.insert(name.into(), server);
    }

    /// Shows a client.
    pub fn client(&self, name: impl Into<String>, client: Observer) {
        self.watched().clients.insert(name.into(), client);
    }

    /// Shows a pool of connections.
    pub fn pool(&self, name: impl Into<String>, pool: PoolObserver) {
        self.watched().pools.insert(name.into(), pool);
    }

    /// Shows a pool of requests.
    pub fn request_pool(&self, name: impl Into<String>, pool: RequestPoolObserver) {
        self.watched().request_pools.insert(name.into(), pool);
    }

    /// Shows a circuit breaker, until it is [removed](Self::remove).
    pub fn breaker(&self, name: impl Into<String>, breaker: CircuitBreaker) {
        self.watched().breakers.insert(name.into(), breaker);
    }

    /// Shows a pool of threads.
    pub fn thread_pool(&self, name: impl Into<String>, pool: &Arc<dyn ThreadPool>) {
        let pool = Arc::downgrade(pool);
        self.watched().thread_pools.insert(name.into(), pool);
    }

    /// Shows nothing any more of what has this name.
    pub fn remove(&self, name: &str) {
        let watched = &mut *self.watched();
        watched.servers.remove(name);
        watched.clients.remove(name);
        watched.pools.remove(name);
        watched.request_pools.remove(name);
        watched.breakers.remove(name);
        watched.thread_pools.remove(name);
    }

    /// The page, in the text format of Prometheus (version 0.0.4); docs/METRICS.md has every name.
    #[must_use]
    pub fn render(&self) -> String {
        let mut page = Page::default();
        self.watched().fill(&mut page);
        page.build_info();
        let mut text = page.render();
        let inner = &*self.0;
        metrics::with_local_recorder(&inner.recorder, || inner.process.collect());
        inner.handle.run_upkeep();
        text.push_str(&inner.handle.render());
        text
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        let watched = self.0.watched.lock();
        watched.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Puts everything on the page that has not ended.
    fn fill(&mut self, page: &mut Page) {
        self.servers.retain(|name, server| {
            let Some(statistics) = server.statistics() else {
                return false;
            };
            let sessions = server.sessions().map(|sessions| sessions.len());
            page.peer("server", name, &statistics, server.is_ready(), sessions);
            true
        });
        self.clients.retain(|name, client| {
            let statistics = client.statistics();
            if let Some(statistics) = &statistics {
                page.peer("client", name, statistics, client.is_ready(), None);
            }
            statistics.is_some()
        });
        self.pools.retain(|name, pool| {
            let statistics = pool.statistics();
            statistics.inspect(|s| page.pool(name, s)).is_some()
        });
        self.request_pools.retain(|name, pool| {
            let statistics = pool.statistics();
            statistics.inspect(|s| page.request_pool(name, s)).is_some()
        });
        for (name, breaker) in &self.breakers {
            page.breaker(name, breaker.state(), breaker.statistics());
        }
        self.thread_pools.retain(|name, pool| {
            let pool = pool.upgrade();
            pool.inspect(|pool| page.thread_pool(name, pool.statistics()))
                .is_some()
        });
    }
}

impl Default for Monitor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").finish_non_exhaustive()
    }
}
