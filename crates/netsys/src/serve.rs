//! `netsys serve`: a server until Ctrl-C, with live statistics.

mod admin;
mod hints;
mod page;
mod report;
mod restart;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use network_system::Server;
use network_system::http::ServeHttp;
use network_system::restart::Inherited;

use crate::config::{Overrides, Settings};
use crate::failure::{EXIT_CODES, Exit, Failure, Result};
use crate::interval::{self, Interval};
use crate::limits::raise_file_limit;
use crate::modes::Service;
use crate::signals::{Asked, Signals};
use crate::{cert, log, output};
use admin::Admin;
use report::Reporter;

const EXAMPLES: &str = "\
Examples:
  netsys serve                                          echo on 127.0.0.1:8080, for every protocol
  netsys serve --listen tcp://0.0.0.0:9000 --workers 2  for other machines too, on two threads
  netsys serve --mode broadcast                         a chat room
  netsys serve --listen 'tcp://:8080?framing=lines'     lines of text, for nc and telnet
  netsys serve --listen unix:///tmp/netsys.sock         a Unix socket
  netsys serve --config netsys.toml                     see `netsys config --print`
  netsys serve --listen http://127.0.0.1:8080           for curl: curl -d hello http://127.0.0.1:8080/messages
  netsys serve --json --listen tcp://127.0.0.1:0        for scripts; port 0 takes a free one
  netsys serve --admin 127.0.0.1:9090                   a dashboard, metrics and health
  netsys serve --self-signed                            TLS, with a certificate of its own
  netsys serve --listen tls://:8443 --tls-cert server.pem --tls-key server.key
                                                        TLS; `netsys cert` makes such files

Ctrl-C (or SIGTERM) lets every connection finish what it has received, for at most
server.shutdown_timeout (10s), and prints a report; a second one ends at once.

SIGHUP reads certificates and keys again, those of Noise, too. Certificates and their keys are also read
again by themselves when the files change and somebody connects. What cannot be used is reported, and what was in use before stays in use.

SIGUSR2 (Unix) starts the program anew, with the same arguments and the file of --config as it is now,
hands it the listening sockets, and drains this process when the new one serves: nobody is turned away.
If the new one does not start, this process goes on and says why. Sockets of systemd (LISTEN_FDS) are
used for the addresses that they are bound to.

With --json each line is an object with an `event`: `listening` first, a `statistics` per
interval, `reloaded` after SIGHUP, `restarted` after SIGUSR2, `draining` when it ends, `drained` last.";

/// Serve until Ctrl-C: echo, discard, broadcast or upper-case what clients send.
///
/// Settings come from the command line, then the file of --config, then the defaults.
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct ServeArgs {
    #[command(flatten)]
    overrides: Overrides,

    /// Use TLS with a certificate that is made now and lost at the end; for development
    ///
    /// It is for localhost, 127.0.0.1, ::1 and the hosts in the addresses. Without --listen the
    /// address is tls://127.0.0.1:8443.
    #[arg(long, conflicts_with = "tls_cert")]
    self_signed: bool,

    /// Time between statistics, or "off" [default: 1s on a terminal, 10s elsewhere]
    ///
    /// On a terminal one line is rewritten in place. Elsewhere a line is printed when something
    /// has happened since the last one; with --json always.
    #[arg(long, value_name = "DURATION", value_parser = interval::or_off)]
    stats_interval: Option<Interval>,

    /// Print nothing but warnings and errors
    #[arg(short, long)]
    quiet: bool,

    /// Print lines of JSON
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

/// Serves until a signal comes.
///
/// # Errors
/// The settings make no sense, or the server cannot start.
pub fn run(args: &ServeArgs) -> Result<ExitCode> {
    // first of all, since it changes the environment
    let inherited = Inherited::from_env().map_err(|error| Failure::connecting(&error));
    let program = restart::Program::of_this_process();
    let mut settings = Settings::load(&args.overrides)?;
    log::start(&settings.log)?;
    if args.self_signed {
        cert::self_signed(&mut settings)?;
    }
    check_files(&settings, raise_file_limit());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("start", &error))?;
    let result = runtime.block_on(serve(args, settings, inherited?, &program));
    // after a second Ctrl-C nothing may hold the process, no blocked handler either
    runtime.shutdown_background();
    result
}

/// Says so when the system allows fewer open files than the settings allow connections.
fn check_files(settings: &Settings, limit: Option<u64>) {
    let most = settings.server.max_connections;
    if let Some(limit) = limit
        && limit < most as u64 + 64
    {
        tracing::warn!(
            "the system allows {limit} open files, fewer than server.max_connections = {most} \
             needs; raise the hard limit (ulimit -Hn)"
        );
    }
}

async fn serve(
    args: &ServeArgs,
    settings: Settings,
    inherited: Inherited,
    program: &restart::Program,
) -> Result<ExitCode> {
    // from here on a signal means to finish in good order
    let mut signals = Signals::new().map_err(|e| Failure::io("watch for signals", &e))?;
    let server = Server::builder()
        .config(settings.server.clone())
        .handler(Service::new(settings.mode))
        .http(page::router(&settings))
        .inherit(inherited.sockets())
        .start()
        .await
        .map_err(|error| Failure::connecting(&error))?;
    let mut reporter = Reporter::new(args.json, args.quiet);
    reporter.listening(&settings, server.listening());
    // the process before has the address until this one is ready
    let restarted = inherited.is_successor();
    let start_admin = || {
        Admin::start(
            &settings.admin,
            &settings.server,
            server.observer(),
            restarted,
        )
    };
    let mut admin = match restarted {
        false => start_admin().await?,
        true => None,
    };
    if let Err(error) = inherited.ready() {
        tracing::warn!(%error, "the process before is gone");
    }
    restart::notify(restart::Notice::Ready);
    if restarted {
        admin = start_admin().await.unwrap_or_else(|error| {
            tracing::error!(%error, "there is no admin listener");
            None
        });
    }
    if let Some(admin) = &admin {
        reporter.admin(admin.address());
    }

    let interval = args
        .stats_interval
        .map_or_else(|| reporter.usual_interval(), |asked| asked.0);
    let mut ticks = Ticks::new(interval.filter(|_| !args.quiet), reporter.is_live());
    loop {
        tokio::select! {
            () = ticks.next() => reporter.statistics(&server.statistics()),
            asked = signals.asked() => match asked {
                Asked::Reload => reporter.reloaded(server.reload()),
                Asked::Restart => match program.restart(server.sockets(), &mut signals).await {
                    restart::Outcome::Ended => break,
                    restart::Outcome::Done(result) => {
                        reporter.restarted(&result);
                        if result.is_ok() {
                            // the next process wants its address
                            drop(admin.take());
                            break;
                        }
                    }
                },
                Asked::End => {
                    restart::notify(restart::Notice::Stopping);
                    break;
                }
            },
        }
    }
    output::end_live();
    // until the end, since it tells that this process is not ready
    let _admin = admin;
    drain(server, &settings, &reporter, &mut signals).await
}

/// When statistics are due.
struct Ticks(Option<tokio::time::Interval>);

impl Ticks {
    /// At every interval; `at_once`: and now.
    fn new(interval: Option<Duration>, at_once: bool) -> Self {
        Self(interval.map(|interval| {
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            if !at_once {
                // at once there is nothing to tell
                ticks.reset();
            }
            ticks
        }))
    }

    async fn next(&mut self) {
        match &mut self.0 {
            Some(ticks) => drop(ticks.tick().await),
            None => std::future::pending().await,
        }
    }
}

/// Lets the connections finish, unless a second signal comes.
async fn drain(
    server: Server,
    settings: &Settings,
    reporter: &Reporter,
    signals: &mut Signals,
) -> Result<ExitCode> {
    let deadline = settings.server.shutdown_timeout;
    reporter.draining(&server.statistics(), deadline);
    tokio::select! {
        report = server.shutdown(deadline) => {
            reporter.drained(&report);
            Ok(ExitCode::SUCCESS)
        }
        () = signals.next() => Ok(Exit::Interrupted.into()),
    }
}
