//! `netsys top`: the dashboard in a terminal, over the admin API.

mod view;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use network_system::ErrorKind;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::Value;

use crate::failure::{EXIT_CODES, Exit, Failure, Result};
use crate::interval;

const EXAMPLES: &str = "\
Examples:
  netsys top                               of netsys serve --admin 127.0.0.1:9090
  netsys top http://10.0.0.5:9090 --token-file admin.token

Keys: q ends it, s sorts by another column, up and down choose a session.";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Sessions that are asked for.
const ROWS: usize = 200;

/// Watch a server: rates, latency, and its sessions, slowest first.
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct TopArgs {
    /// The admin address of the server, http://
    #[arg(default_value = "http://127.0.0.1:9090")]
    url: String,

    /// The file whose first line is the admin token
    #[arg(long, value_name = "FILE")]
    token_file: Option<std::path::PathBuf>,

    /// Time between looks
    #[arg(long, value_name = "DURATION", value_parser = interval::duration, default_value = "1s")]
    interval: Duration,

    /// Print one look as text and end, for scripts and where there is no terminal
    #[arg(long)]
    once: bool,
}

/// What one look has found.
#[derive(Default)]
struct Look {
    statistics: Value,
    sessions: Value,
    error: Option<String>,
}

/// Asks the admin API.
struct Source {
    url: String,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Source {
    fn new(args: &TopArgs) -> Result<Self> {
        let token = args.token_file.as_ref().map(std::fs::read_to_string);
        let token = token
            .transpose()
            .map_err(|error| Failure::io("read the admin token", &error))?;
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE));
        let url = match args.url.contains("://") {
            true => args.url.clone(),
            false => format!("http://{}", args.url),
        };
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            token: token.and_then(|text| Some(text.lines().next()?.trim().to_owned())),
            agent: config.build().into(),
        })
    }

    fn json(&self, path: &str) -> std::result::Result<Value, String> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let said = |error: ureq::Error| match error {
            ureq::Error::StatusCode(401) => "the admin token is missing or wrong".to_owned(),
            other => other.to_string(),
        };
        let mut answer = request.call().map_err(said)?;
        let text = answer.body_mut().read_to_string().map_err(said)?;
        serde_json::from_str(&text).map_err(|error| format!("no answer of netsys: {error}"))
    }

    fn look(&self, sort: &str) -> Look {
        let sessions = format!("/api/sessions?sort={sort}&order=desc&per_page={ROWS}");
        let both = self.json("/api/statistics").and_then(|statistics| {
            let sessions = self.json(&sessions)?;
            Ok(Look {
                statistics,
                sessions,
                error: None,
            })
        });
        both.unwrap_or_else(|error| Look {
            error: Some(error),
            ..Look::default()
        })
    }
}

/// Watches until `q`.
///
/// # Errors
/// The server cannot be asked (with `--once`), or the terminal not be used.
pub fn run(args: &TopArgs) -> Result<ExitCode> {
    let source = Source::new(args)?;
    let mut view = view::View::new(&source.url);
    if args.once {
        let look = source.look(view.sort());
        if let Some(error) = look.error {
            let text = format!("ask {}: {error}", source.url);
            return Err(Failure::new(
                Exit::Connection,
                ErrorKind::ConnectionFailed,
                text,
            ));
        }
        view.show(look);
        crate::output::line(&view.text(110, 30));
        return Ok(ExitCode::SUCCESS);
    }
    let mut terminal =
        ratatui::try_init().map_err(|error| Failure::io("use the terminal", &error))?;
    let result = watch(&source, &mut view, &mut terminal, args.interval);
    ratatui::restore();
    result.map_err(|error| Failure::io("use the terminal", &error))?;
    Ok(ExitCode::SUCCESS)
}

fn watch(
    source: &Source,
    view: &mut view::View,
    terminal: &mut ratatui::DefaultTerminal,
    interval: Duration,
) -> std::io::Result<()> {
    loop {
        let next = Instant::now() + interval;
        view.show(source.look(view.sort()));
        loop {
            terminal.draw(|frame| view.draw(frame))?;
            if !event::poll(next.saturating_duration_since(Instant::now()))? {
                break;
            }
            let Event::Key(key) = event::read()? else {
                continue;
            };
            match key.code {
                _ if key.kind != KeyEventKind::Press => {}
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                    return Ok(());
                }
                KeyCode::Char('s') => {
                    view.next_sort();
                    break;
                }
                KeyCode::Down => view.choose(1),
                KeyCode::Up => view.choose(-1),
                _ => {}
            }
        }
    }
}
