//! The settings of `netsys serve`: command line over `netsys.toml` over defaults; and
//! `netsys config`, which shows and checks them.

mod admin;
mod file;
mod keys;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args};
use network_system::config::{CertificateFiles, ClientAuth, HttpConfig, Pem, ServerConfig};
use serde::{Deserialize, Serialize};

use crate::address;
use crate::failure::{EXIT_CODES, Failure, Result};
use crate::log::LogArgs;
use crate::modes::Mode;
use crate::pipeline::PipelineArgs;
use crate::{interval, log, output};

pub use admin::AdminSettings;

/// Where the server listens unless told otherwise: only this machine can reach it.
pub const DEFAULT_LISTEN: &str = "auto://127.0.0.1:8080";

/// Where curl finds the handler, on addresses with HTTP.
pub const MESSAGES: &str = "/messages";

/// Everything that a configuration file can say.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// What the server does with messages. Default: echo.
    pub mode: Mode,
    /// What is logged. Default: `warn`.
    pub log: String,
    /// The admin listener. Default: none.
    pub admin: AdminSettings,
    /// The server's settings. Defaults differ from the library's: one worker, one address, and a
    /// message gateway over HTTP.
    pub server: ServerConfig,
}

impl Default for Settings {
    fn default() -> Self {
        let server = ServerConfig {
            listen: vec![DEFAULT_LISTEN.to_owned()],
            workers: 1,
            http: HttpConfig {
                messages: Some(MESSAGES.to_owned()),
                websocket: Some("*".to_owned()),
                grpc: true,
                ..HttpConfig::default()
            },
            ..ServerConfig::default()
        };
        Self {
            mode: Mode::default(),
            log: log::DEFAULT.to_owned(),
            admin: AdminSettings::default(),
            server,
        }
    }
}

/// The options that change settings.
#[derive(Args, Clone, Debug, Default)]
pub struct Overrides {
    /// Address to listen on; give it several times for several [default: auto://127.0.0.1:8080]
    ///
    /// tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH, wss://, http://HOST:PORT, https://, grpc://, auto:// or unix:///PATH. Port 0 takes a free one, an empty host (tcp://:8080) every
    /// address of this machine. A query changes settings for one address, such as
    /// tcp://127.0.0.1:8080?framing=lines (others: envelope, max_message, tls, websocket, deflate,
    /// pipeline, compress, allow, deny, proxies).
    #[arg(long, value_name = "URL")]
    listen: Vec<String>,

    /// Certificate for addresses with TLS, and its chain, in PEM form
    ///
    /// For several certificates, of which clients get the one for the name that they ask for, see
    /// server.tls.certificates in the file.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The key of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Only clients with a certificate of this authority may connect with TLS
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,

    #[command(flatten)]
    pipeline: PipelineArgs,

    /// What to do with each message [default: echo]
    #[arg(long, value_enum)]
    mode: Option<Mode>,

    /// Threads, each with listeners of its own; a connection stays on its thread [default: 1]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,

    /// Look so long for input before a thread sleeps, as long as that pays; some 50us for the
    /// lowest latency [default: off]
    #[arg(long, value_name = "DURATION", value_parser = interval::duration)]
    busy_poll: Option<Duration>,

    /// Keep each thread on a core of its own (Linux)
    #[arg(long)]
    pin: bool,

    /// Configuration file in TOML; `netsys config --print` shows every key
    #[arg(long, value_name = "FILE", env = "NETSYS_CONFIG")]
    config: Option<PathBuf>,

    /// Serve a dashboard, metrics, health and a JSON API there; 127.0.0.1:9090, say
    ///
    /// An address, or a URL: http://HOST:PORT, or https:// with the server's certificate. Where others
    /// than this machine can reach it, it needs a token.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,

    /// The file whose first line is the token for --admin; without one nothing can be changed there
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,

    #[command(flatten)]
    log: LogArgs,
}

impl Settings {
    /// The settings that hold: `overrides` over the file over the defaults.
    ///
    /// # Errors
    /// Names the key that is unknown, wrong or does not fit the others, and what is allowed.
    pub fn load(overrides: &Overrides) -> Result<Self> {
        let mut settings = match &overrides.config {
            Some(path) => file::load(path)?,
            None => Self::default(),
        };
        if !overrides.listen.is_empty() {
            settings.server.listen.clone_from(&overrides.listen);
        }
        let tls = &mut settings.server.tls;
        if let (Some(certificate), Some(key)) = (&overrides.tls_cert, &overrides.tls_key) {
            tls.certificates = vec![CertificateFiles::new(&**certificate, &**key)];
        }
        if let Some(ca) = &overrides.client_ca {
            tls.client_ca = vec![Pem::file(ca)];
            if tls.client_auth == ClientAuth::Off {
                tls.client_auth = ClientAuth::Required;
            }
        }
        overrides.pipeline.apply(&mut settings.server.session);
        if let Some(mode) = overrides.mode {
            settings.mode = mode;
        }
        if let Some(workers) = overrides.workers {
            settings.server.workers = workers;
        }
        if overrides.busy_poll.is_some() {
            settings.server.worker.busy_poll = overrides.busy_poll;
        }
        settings.server.worker.pin |= overrides.pin;
        if let Some(admin) = &overrides.admin {
            settings.admin.listen.clone_from(admin);
        }
        if let Some(file) = &overrides.admin_token_file {
            settings.admin.token_file = shown(file);
        }
        if let Some(log) = overrides.log.get() {
            log.clone_into(&mut settings.log);
        }
        settings.validate()?;
        Ok(settings)
    }

    /// Checks what no single key can tell.
    fn validate(&self) -> Result<()> {
        log::parse(&self.log).map_err(Failure::usage)?;
        self.admin.validate()?;
        self.server.validate()?;
        if self.server.listen.is_empty() {
            return Err(Failure::usage(format_args!(
                "there is no address to listen on; allowed in server.listen: {}",
                keys::allowed("server.listen").unwrap_or_default()
            )));
        }
        for listen in &self.server.listen {
            address::parse(listen, &self.server.session, &self.server.socket)?;
        }
        Ok(())
    }
}

const EXAMPLES: &str = "\
Examples:
  netsys config --print > netsys.toml       write every setting with its default
  netsys config --check netsys.toml         see whether a file is right
  netsys config --print --config netsys.toml --workers 4
                                            what `netsys serve` with these options would use";

/// Show the settings of `netsys serve` as TOML, or check a file of them.
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(group = ArgGroup::new("what").required(true))]
pub struct ConfigArgs {
    /// Print the settings that `netsys serve` would use, as a file for --config
    #[arg(long, group = "what")]
    print: bool,

    /// Check a configuration file
    #[arg(long, value_name = "FILE", group = "what", conflicts_with = "config")]
    check: Option<PathBuf>,

    #[command(flatten)]
    overrides: Overrides,
}

/// Prints or checks.
///
/// # Errors
/// What is wrong with the settings.
pub fn run(args: &ConfigArgs) -> Result<ExitCode> {
    let overrides = match &args.check {
        Some(path) => Overrides {
            config: Some(path.clone()),
            ..args.overrides.clone()
        },
        None => args.overrides.clone(),
    };
    let settings = Settings::load(&overrides)?;
    if let Some(path) = &args.check {
        output::line(&format!("{}: right", path.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let text = keys::print(&settings)?;
    output::write(text.as_bytes()).map_err(|error| Failure::io("write the settings", &error))?;
    Ok(ExitCode::SUCCESS)
}

/// The name of a file as messages show it.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
