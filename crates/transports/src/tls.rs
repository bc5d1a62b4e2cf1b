//! TLS over any stream transport: `tls://host:port`, and `?tls=true` elsewhere. [`Tls`] makes and
//! keeps what rustls needs, and links of it.
//!
//! | File | What it does |
//! |---|---|
//! | `stream.rs` | one connection: rustls over a socket, and how bytes move between them |
//! | `link.rs` | the link, its handshake, and listeners for it |
//! | `plain.rs` | the streams that it can lie over |
//! | `server.rs`, `client.rs` | settings to what rustls needs; which certificate a client gets |
//! | `material.rs` | PEM to certificates, keys and authorities, with errors that name the file |
//! | `reload.rs` | what was read from files, and is read again when they change |
//! | `identity.rs`, `failure.rs` | who the peer is, and what went wrong, in terms of this library |

mod client;
mod failure;
mod identity;
mod link;
mod material;
mod plain;
mod reload;
mod server;
mod stream;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use network_system_core::config::{LinkConfig, TlsClientConfig};
use network_system_core::{Address, Bound, Result};

use client::Client;
#[cfg(feature = "websocket")]
pub(crate) use link::Secured;
pub use link::{TlsBound, TlsLink, TlsListener};
pub use plain::Plain;
use reload::Reloading;
use rustls::pki_types::ServerName;
use server::Server;

/// Clients' settings that are kept for the next connect, with the sessions that can be resumed.
const KEPT: usize = 64;

/// What TLS has read from files: of the addresses that were bound, and of the settings that were
/// connected with last. Every clone means the same.
#[derive(Clone, Default)]
pub struct Tls(Arc<Inner>);

#[derive(Default)]
struct Inner {
    servers: Mutex<Vec<Weak<Reloading<Server>>>>,
    clients: Mutex<Vec<Known>>,
}

/// Clients' settings, and what was made of them.
type Known = (Arc<TlsClientConfig>, Arc<Reloading<Client>>);

impl Tls {
    /// Whether this build has TLS.
    pub const IS_THERE: bool = true;

    /// Reads what a listener on `address` needs. Before the address is taken, so that settings that
    /// cannot work take nothing.
    pub(crate) fn accept(&self, address: &Address, config: &LinkConfig) -> Result<Accepting> {
        let server = Arc::new(server::load(address, &config.tls_server)?);
        let mut servers = lock(&self.0.servers);
        servers.retain(|server| server.strong_count() > 0);
        servers.push(Arc::downgrade(&server));
        Ok(Accepting(server))
    }

    /// What a connect to `address` needs. Before there is a stream, for the same reason.
    pub(crate) fn connect(&self, address: &Address, config: &LinkConfig) -> Result<Connecting> {
        Ok(Connecting {
            name: client::server_name(address, &config.tls_client)?,
            client: self.client(&config.tls_client)?.current(),
        })
    }

    /// What a client with these settings needs.
    fn client(&self, config: &Arc<TlsClientConfig>) -> Result<Arc<Reloading<Client>>> {
        let mut clients = lock(&self.0.clients);
        if let Some((_, client)) = clients.iter().find(|(known, _)| known == config) {
            return Ok(client.clone());
        }
        let client = Arc::new(client::load(config)?);
        if clients.len() >= KEPT {
            clients.remove(0);
        }
        clients.push((config.clone(), client.clone()));
        Ok(client)
    }

    /// Reads everything again; what cannot be used stays as it was.
    pub(crate) fn reload(&self) -> Result<()> {
        let servers = lock(&self.0.servers).clone();
        let servers = servers.iter().filter_map(Weak::upgrade);
        let mut result = Ok(());
        for server in servers {
            result = result.and(server.reload());
        }
        let clients = lock(&self.0.clients).clone();
        for (_, client) in clients {
            result = result.and(client.reload());
        }
        result
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// What the listeners of one address share.
pub(crate) struct Accepting(Arc<Reloading<Server>>);

impl Accepting {
    /// TLS on each of these.
    pub(crate) fn over<B: Bound>(self, bound: Vec<B>) -> impl Iterator<Item = TlsBound<B>> {
        let secured = move |plain| TlsBound::new(plain, self.0.clone());
        bound.into_iter().map(secured)
    }
}

/// What one connect needs.
pub(crate) struct Connecting {
    client: Arc<Client>,
    name: ServerName<'static>,
}

impl Connecting {
    /// Does the client's handshake over a stream to `address`.
    pub(crate) async fn over(self, plain: Plain, address: &Address) -> Result<TlsLink> {
        TlsLink::connect(plain, &self.client, self.name, address).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
