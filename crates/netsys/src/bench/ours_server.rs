//! Our server in a measurement: the handler-level API, every default limit and statistics on.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use network_system::config::{Pem, TlsServerConfig, WorkerConfig};
use network_system::{CloseReason, Handler, Inbox, MessageRef, Server, ServerBuilder, Session};

use super::error::{Context, Error, Result};
use super::roles::{Implementation, ServerArgs, ready};
use super::verify::{COUNT, ECHO, Tally};
use super::way::{Way, new_psk};
use crate::cert::issue;

/// Serves until the process ends.
pub fn run(args: &ServerArgs) -> Result<()> {
    runtime()?.block_on(async {
        let server = Server::builder()
            .workers(1)
            .worker(worker(args.busy_poll))
            .handler(Counting);
        let psk = args.noise.then(new_psk).transpose()?;
        let way = Way {
            compress: args.compress,
            psk: psk.clone(),
        };
        let pipeline = way.pipeline()?;
        let server = pipeline.into_iter().fold(server, ServerBuilder::pipeline);
        let (server, secret) = match args.implementation {
            Implementation::OursTls => {
                let (tls, certificate) = own_certificate()?;
                let listen = args.listen.replacen("tcp://", "tls://", 1);
                (server.listen(listen).tls(tls), certificate)
            }
            _ => (server.listen(&args.listen), psk.unwrap_or_default()),
        };
        let server = server.start().await.map_err(failed)?;
        let local = server.listening().first();
        let url = local.map(ToString::to_string).unwrap_or_default();
        ready(format!("{url} {secret}").trim_end())?;
        std::future::pending::<()>().await;
        drop(server);
        Ok(())
    })
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// A certificate for this run, and the same in one line. The key does not leave this process.
fn own_certificate() -> Result<(TlsServerConfig, String)> {
    let made = issue::self_signed(&["127.0.0.1".to_owned()]);
    let (certificate, key) = made.map_err(|error| Error::Failed(error.to_string()))?;
    let line = certificate.replace(BEGIN, "").replace(END, "");
    let line = line.split_whitespace().collect();
    let tls = TlsServerConfig::new(Pem::text(certificate), Pem::text(key));
    Ok((tls, line))
}

/// The certificate in such a line.
pub fn certificate(line: &str) -> Pem {
    Pem::text(format!("{BEGIN}\n{line}\n{END}\n"))
}

/// How our workers run.
pub fn worker(busy_poll: Option<Duration>) -> WorkerConfig {
    WorkerConfig {
        busy_poll,
        ..WorkerConfig::default()
    }
}

/// One thread, as the raw programs have.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

/// An error of ours as one of the benchmark.
pub fn failed(error: network_system::Error) -> Error {
    Error::Failed(error.to_string())
}

/// Sends messages back, or counts them, as their first byte says.
struct Counting;

/// The tallies of this thread's connections; the one that counted last stands outside of the map.
#[derive(Default)]
struct Tallies {
    id: u64,
    current: Tally,
    others: HashMap<u64, Tally>,
}

thread_local! {
    static TALLIES: RefCell<Tallies> = RefCell::default();
}

impl Tallies {
    /// The tally of one connection.
    #[inline]
    fn of(&mut self, id: u64) -> &mut Tally {
        if id != self.id {
            let next = self.others.remove(&id).unwrap_or_default();
            let before = std::mem::replace(&mut self.current, next);
            self.others
                .insert(std::mem::replace(&mut self.id, id), before);
        }
        &mut self.current
    }
}

/// Counts or answers what has come.
fn answer(session: &Session, inbox: &mut Inbox<'_>) -> network_system::Result<()> {
    TALLIES.with_borrow_mut(|tallies| {
        let id = session.id();
        inbox.each(session, |message, outgoing| match message.first() {
            Some(&ECHO) => outgoing.send(message),
            Some(&COUNT) => {
                tallies.of(id).add(message);
                Ok(())
            }
            _ => outgoing.send(tallies.of(id).answer()),
        })
    })
}

impl Handler for Counting {
    async fn on_message(&self, _: &Session, _: &MessageRef<'_>) -> network_system::Result<()> {
        // all come through `on_batch`
        Ok(())
    }

    async fn on_batch(
        &self,
        session: &Session,
        inbox: &mut Inbox<'_>,
    ) -> network_system::Result<()> {
        answer(session, inbox)
    }

    async fn on_disconnect(&self, session: &Session, _: &CloseReason) {
        TALLIES.with_borrow_mut(|tallies| {
            *tallies.of(session.id()) = Tally::default();
            tallies.others.remove(&session.id());
        });
    }
}
