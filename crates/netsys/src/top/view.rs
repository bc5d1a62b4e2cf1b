//! What `netsys top` shows of one look: [`View`].

use std::time::Duration;

use ratatui::Frame;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Paragraph, Row, Table, TableState};
use serde_json::Value;

use super::Look;
use crate::output::{bytes, count, duration};

/// What can be sorted by, and the heads of their columns.
const SORTS: [(&str, &str); 6] = [
    ("queued_bytes", "queued"),
    ("messages_in", "in"),
    ("messages_out", "out"),
    ("bytes_in", "bytes in"),
    ("bytes_out", "bytes out"),
    ("age", "age"),
];

/// The screen.
pub struct View {
    url: String,
    look: Look,
    sort: usize,
    table: TableState,
}

impl View {
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            look: Look::default(),
            sort: 0,
            table: TableState::default(),
        }
    }

    /// What the sessions are sorted by.
    pub fn sort(&self) -> &'static str {
        SORTS[self.sort % SORTS.len()].0
    }

    pub fn next_sort(&mut self) {
        self.sort = (self.sort + 1) % SORTS.len();
    }

    /// Chooses the session so many lines further.
    pub fn choose(&mut self, lines: isize) {
        let rows = self.look.sessions["sessions"]
            .as_array()
            .map_or(0, Vec::len);
        let at = self.table.selected().unwrap_or(0);
        let at = at.saturating_add_signed(lines).min(rows.saturating_sub(1));
        self.table.select((rows > 0).then_some(at));
    }

    /// Takes a new look; after a failure what was seen last stays, with the error above.
    pub fn show(&mut self, look: Look) {
        match look.error {
            Some(error) => self.look.error = Some(error),
            None => self.look = look,
        }
    }

    /// The screen as text.
    pub fn text(&mut self, width: u16, height: u16) -> String {
        let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
        let Ok(_) = terminal.draw(|frame| self.draw(frame));
        let buffer = terminal.backend().buffer();
        let lines = buffer.content.chunks(usize::from(width));
        let lines = lines.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>());
        let lines: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n").trim_end().to_owned()
    }

    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let above = Layout::vertical([Constraint::Length(6), Constraint::Min(3)]);
        let [figures, sessions] = above.areas(frame.area());
        let state = match &self.look.error {
            Some(error) => format!(" {}: {} ", self.url, shown(error)),
            None => format!(" {} ", self.url),
        };
        let block = Block::bordered().title(state);
        let text = Text::from(self.figures());
        frame.render_widget(Paragraph::new(text).block(block), figures);
        let total = self.look.sessions["total"].as_u64().unwrap_or(0);
        let title = format!(" {total} sessions by {}; s: sort, q: end ", self.sort());
        let table = self.sessions().block(Block::bordered().title(title));
        frame.render_stateful_widget(table, sessions, &mut self.table);
    }

    fn figures(&self) -> Vec<Line<'static>> {
        let s = &self.look.statistics;
        let n = |name: &str| s[name].as_f64().unwrap_or(0.0);
        let latency = |name: &str| us(s["latency_us"][name].as_f64().unwrap_or(0.0));
        let transports = s["transports"].as_object().into_iter().flatten();
        let transports = transports.map(|(name, t)| {
            let active = t["connections_active"].as_f64().unwrap_or(0.0);
            format!("{} {}", shown(name), count(active))
        });
        let transports = transports.collect::<Vec<_>>().join(", ");
        let refused = s["connections_refused"].as_object().into_iter().flatten();
        let refused: u64 = refused.filter_map(|(_, n)| n.as_u64()).sum();
        vec![
            Line::from(format!(
                "connections {} ({transports}), {} in all, {refused} refused, {} dropped messages",
                count(n("connections_active")),
                count(n("connections_total")),
                count(n("messages_dropped")),
            )),
            Line::from(format!(
                "in  {} msg/s, {}/s      {} messages in all",
                count(n("messages_in_per_second")),
                bytes(n("bytes_in_per_second")),
                count(n("messages_in")),
            )),
            Line::from(format!(
                "out {} msg/s, {}/s      {} messages in all, {} queued",
                count(n("messages_out_per_second")),
                bytes(n("bytes_out_per_second")),
                count(n("messages_out")),
                bytes(n("queued_bytes")),
            )),
            Line::from(format!(
                "latency p50 {}, p90 {}, p99 {}, p99.9 {}",
                latency("p50"),
                latency("p90"),
                latency("p99"),
                latency("p999"),
            )),
        ]
    }

    fn sessions(&self) -> Table<'static> {
        let sessions = self.look.sessions["sessions"].as_array();
        let rows = sessions.into_iter().flatten().map(row);
        let widths = [
            Constraint::Length(8),
            Constraint::Min(22),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Length(10),
        ];
        let head = [
            "id",
            "who",
            "transport",
            "age",
            "in",
            "out",
            "bytes in",
            "bytes out",
            "queued",
        ];
        let mark = SORTS[self.sort % SORTS.len()].1;
        let head = head.map(|name| match name == mark {
            true => format!("{name}*"),
            false => name.to_owned(),
        });
        Table::new(rows, widths)
            .header(Row::new(head).style(Style::new().fg(Color::Cyan)))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
    }
}

fn row(session: &Value) -> Row<'static> {
    let n = |name: &str| session[name].as_f64().unwrap_or(0.0);
    let text = |name: &str| shown(session[name].as_str().unwrap_or_default());
    let subject = session["tls"]["subject"].as_str().unwrap_or_default();
    Row::new([
        count(n("id")),
        format!("{} {}", text("peer"), shown(subject)),
        text("transport"),
        us(n("age_seconds") * 1e6),
        count(n("messages_in")),
        count(n("messages_out")),
        bytes(n("bytes_in")),
        bytes(n("bytes_out")),
        bytes(n("queued_bytes")),
    ])
}

/// What a peer may have chosen cannot steer the terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn us(microseconds: f64) -> String {
    duration(Duration::try_from_secs_f64(microseconds / 1e6).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn look() -> Look {
        Look {
            statistics: json!({
                "connections_active": 3, "connections_total": 7, "messages_dropped": 1,
                "transports": {"tcp": {"connections_active": 2}, "tls": {"connections_active": 1}},
                "connections_refused": {"per_ip": 4, "denied": 1},
                "messages_in_per_second": 1500.0, "bytes_in_per_second": 2e6,
                "latency_us": {"p50": 12.0, "p90": 20.0, "p99": 1500.0, "p999": 2e6},
            }),
            sessions: json!({"total": 2, "sessions": [
                {"id": 9, "peer": "10.0.0.1:5", "transport": "tls", "queued_bytes": 4096,
                 "tls": {"subject": "CN=al\u{1b}[31mice"}, "messages_in": 5},
                {"id": 8, "peer": "10.0.0.2:6", "transport": "tcp", "tls": null},
            ]}),
            error: None,
        }
    }

    #[test]
    fn a_look_is_drawn_with_everything_in_it() {
        let mut view = View::new("http://h:1");
        view.show(look());
        let text = view.text(120, 16);
        for wanted in [
            "http://h:1",
            "tcp 2, tls 1",
            "5 refused",
            "10.0.0.1:5 CN=al[31mice",
            "10.0.0.2:6",
            "queued*",
            "2 sessions",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        view.next_sort();
        assert_eq!(view.sort(), "messages_in");
        view.choose(5);
        assert_eq!(view.table.selected(), Some(1));
    }

    #[test]
    fn after_a_failure_the_last_look_stays() {
        let mut view = View::new("http://h:1");
        view.show(look());
        let error = Some("connection refused".to_owned());
        view.show(Look {
            error,
            ..Look::default()
        });
        let text = view.text(120, 16);
        assert!(
            text.contains("connection refused") && text.contains("10.0.0.2:6"),
            "{text}"
        );
        // nothing breaks where there is no room
        view.text(10, 3);
    }
}
