//! What `netsys serve` does with messages: [`Mode`], and [`Service`], the handler that does it.

use clap::ValueEnum;
use network_system::{Handler, Message, MessageKind, MessageRef, Request, Result, Session};
use serde::{Deserialize, Serialize};

/// What the server does with a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Send it back
    #[default]
    Echo,
    /// Drop it; a request gets an empty reply
    Discard,
    /// Send it to every connection, the sender's too; a request gets the number of them
    Broadcast,
    /// Send it back in upper case
    Upper,
}

impl Mode {
    /// The name on the command line and in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Discard => "discard",
            Self::Broadcast => "broadcast",
            Self::Upper => "upper",
        }
    }
}

/// The handler of every connection.
pub struct Service {
    mode: Mode,
}

impl Service {
    /// A handler that does what `mode` says.
    pub fn new(mode: Mode) -> Self {
        Self { mode }
    }
}

impl Handler for Service {
    #[inline]
    async fn on_message(&self, session: &Session, message: &MessageRef<'_>) -> Result<()> {
        match self.mode {
            Mode::Echo => session.send(message).await,
            Mode::Upper => session.send(upper(&message.to_message())).await,
            Mode::Discard => Ok(()),
            Mode::Broadcast => {
                session.sessions().broadcast(message);
                Ok(())
            }
        }
    }

    async fn on_request(&self, session: &Session, request: Request) -> Result<()> {
        let asked = request.message();
        let reply = match self.mode {
            Mode::Echo => asked.clone(),
            Mode::Upper => upper(asked),
            Mode::Discard => Message::default(),
            Mode::Broadcast => {
                let report = session.sessions().broadcast(asked);
                report.queued.to_string().into()
            }
        };
        request.reply(reply).await
    }
}

/// Text in upper case; in bytes that are no text, only the ASCII letters change.
fn upper(message: &Message) -> Message {
    match message.as_str() {
        Some(text) => Message::from(text.to_uppercase()).with_kind(message.kind()),
        None => Message::from(message.to_ascii_uppercase()).with_kind(MessageKind::Binary),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line_and_of_configuration() {
        for mode in Mode::value_variants() {
            let value = mode.to_possible_value().unwrap();
            assert_eq!(value.get_name(), mode.name());
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.name());
        }
    }

    #[test]
    fn upper_case_of_text_and_of_bytes() {
        assert_eq!(upper(&"straße 1".into()), "STRASSE 1");
        assert_eq!(upper(&Message::copy_from(b"a\xff z")), b"A\xff Z");
        assert_eq!(upper(&Message::default()), b"");
    }
}
