//! How received messages are shown: as text, in hexadecimal, or as JSON.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Stdout, Write};

use network_system::Message;
use serde::Serialize;

use super::ConnectArgs;
use crate::failure::{Failure, Result};
use crate::output;

/// Prints messages. What is printed leaves with [`flush`](Self::flush), so that many cost no more
/// than a few writes.
pub struct Printer {
    style: Style,
    out: BufWriter<Stdout>,
    printed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// As they are, each on a line of its own.
    Lines,
    /// As they are.
    Bytes,
    /// For a terminal: without anything that would control it; marked where one also types there.
    Terminal {
        marked: bool,
    },
    Hex,
    Json,
}

#[derive(Serialize)]
struct Line<'a> {
    n: u64,
    bytes: usize,
    #[serde(flatten)]
    content: Content<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Content<'a> {
    Text(&'a str),
    Hex(String),
}

impl Printer {
    /// What `args` ask for; `interactive` where somebody types on the same terminal.
    pub fn new(args: &ConnectArgs, interactive: bool) -> Self {
        let style = if args.json {
            Style::Json
        } else if args.hex {
            Style::Hex
        } else if output::is_terminal() {
            Style::Terminal {
                marked: interactive,
            }
        } else if args.no_newline {
            Style::Bytes
        } else {
            Style::Lines
        };
        Self {
            style,
            out: BufWriter::new(io::stdout()),
            printed: 0,
        }
    }

    /// Prints one message.
    ///
    /// # Errors
    /// Standard output cannot be written to.
    pub fn message(&mut self, message: &Message) -> Result<()> {
        self.printed += 1;
        render(self.style, self.printed, message, &mut self.out).map_err(|e| failed(&e))
    }

    /// Lets what has been printed be seen.
    ///
    /// # Errors
    /// Standard output cannot be written to.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(|e| failed(&e))
    }
}

fn failed(error: &io::Error) -> Failure {
    Failure::io("write to standard output", error)
}

fn render(style: Style, n: u64, message: &Message, out: &mut impl Write) -> io::Result<()> {
    match style {
        Style::Bytes => out.write_all(message),
        Style::Lines => {
            out.write_all(message)?;
            out.write_all(b"\n")
        }
        Style::Terminal { marked } => {
            let mark = if marked { "< " } else { "" };
            writeln!(out, "{mark}{}", harmless(message))
        }
        Style::Hex => {
            let s = if message.len() == 1 { "" } else { "s" };
            writeln!(out, "message {n}, {} byte{s}", message.len())?;
            dump(message, out)
        }
        Style::Json => {
            let content = match message.as_str() {
                Some(text) => Content::Text(text),
                None => Content::Hex(hex(message)),
            };
            serde_json::to_writer(
                &mut *out,
                &Line {
                    n,
                    bytes: message.len(),
                    content,
                },
            )?;
            out.write_all(b"\n")
        }
    }
}

/// The text with control characters and bytes that are no UTF-8 escaped: a peer must not move the
/// cursor or rename the window.
fn harmless(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '\t' => text.push(c),
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in part.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Sixteen bytes per line, as `hexdump -C` shows them.
fn dump(bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    for (row, chunk) in bytes.chunks(16).enumerate() {
        let mut line = format!("{:08x} ", row * 16);
        for at in 0..16 {
            let gap = if at == 8 { "  " } else { " " };
            let _ = match chunk.get(at) {
                Some(byte) => write!(line, "{gap}{byte:02x}"),
                None => write!(line, "{gap}  "),
            };
        }
        let text = chunk.iter().map(|b| match b {
            0x20..=0x7e => char::from(*b),
            _ => '.',
        });
        writeln!(out, "{line}  |{}|", text.collect::<String>())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(style: Style, bytes: &[u8]) -> String {
        let mut out = Vec::new();
        render(style, 7, &Message::copy_from(bytes), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_terminal_gets_nothing_that_controls_it() {
        let style = Style::Terminal { marked: true };
        assert_eq!(
            shown(style, b"a\tb \x1b[2J\x07\n\xff\xc3\xa9"),
            "< a\tb \\u{1b}[2J\\u{7}\\n\\xffé\n"
        );
        assert_eq!(shown(Style::Lines, b"\x1b[2J"), "\x1b[2J\n");
        assert_eq!(shown(Style::Bytes, b"a"), "a");
    }

    #[test]
    fn hexadecimal_has_sixteen_bytes_per_line() {
        assert_eq!(
            shown(Style::Hex, b"0123456789abcdefX\n"),
            "message 7, 18 bytes\n\
             00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|\n\
             00000010  58 0a                                             |X.|\n"
        );
        assert_eq!(shown(Style::Hex, b""), "message 7, 0 bytes\n");
    }

    #[test]
    fn json_has_text_or_hexadecimal() {
        assert_eq!(
            shown(Style::Json, b"a\"b"),
            "{\"n\":7,\"bytes\":3,\"text\":\"a\\\"b\"}\n"
        );
        assert_eq!(
            shown(Style::Json, b"\xff\x00"),
            "{\"n\":7,\"bytes\":2,\"hex\":\"ff00\"}\n"
        );
    }
}
