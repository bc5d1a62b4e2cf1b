//! Requests: each message is sent as one, and its reply is printed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use network_system::{Backoff, Client, Error, ErrorKind, Handler, Message, MessageRef, Session};

use super::input::Input;
use super::print::Printer;
use super::{ConnectArgs, Tally, greet};
use crate::failure::{Exit, Failure, Result};

/// How long the last bytes may take at the end.
const CLOSING: Duration = Duration::from_secs(5);

/// Prints messages that are no replies.
#[derive(Clone)]
struct Show(Arc<Mutex<Printer>>);

impl Show {
    fn print(&self, message: &Message) -> Result<()> {
        let mut printer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        printer.message(message)?;
        printer.flush()
    }
}

impl Handler for Show {
    async fn on_message(
        &self,
        _: &Session,
        message: &MessageRef<'_>,
    ) -> network_system::Result<()> {
        self.print(&message.to_message()).map_err(|failure| {
            Error::new(ErrorKind::Io, "print a message").because(failure.to_string().trim_end())
        })
    }
}

/// Connects, sends each message of `input` as a request and prints the replies, one after another.
///
/// # Errors
/// There is no connection, it ends, or a request fails; a person is told and may go on.
pub async fn run(
    args: &ConnectArgs,
    interactive: bool,
    input: impl FnOnce() -> Input,
    printer: Printer,
    tally: &Tally,
) -> Result<()> {
    let show = Show(Arc::new(Mutex::new(printer)));
    let client = Client::builder(&args.url)
        .config(args.client_config())
        .envelope(true)
        .reconnect(Backoff::never())
        .handler(show.clone())
        .connect()
        .await
        .map_err(|error| Failure::connecting(&error))?;
    if interactive {
        greet(args);
    }
    let mut input = input();
    let session = client.session();
    let ended = async {
        match &session {
            Some(session) => session.ended().await,
            None => std::future::pending().await,
        }
    };
    let asking = async {
        while let Some(messages) = input.next().await? {
            for message in messages {
                tally.sent();
                match client.request(message).await {
                    Ok(reply) => {
                        show.print(&reply)?;
                        tally.received();
                    }
                    Err(error) if interactive && !error.is_closed() => {
                        Failure::from(error).report();
                    }
                    Err(error) => return Err(error.into()),
                }
                if tally.has(args.count) {
                    return Ok(());
                }
            }
        }
        match args.count {
            Some(_) => Err(Failure::new(
                Exit::General,
                ErrorKind::InvalidArgument,
                format_args!("the input ended early: {}", tally.describe(args.count)),
            )),
            None => Ok(()),
        }
    };
    let result = tokio::select! {
        biased;
        result = asking => result,
        // somebody who thinks about the next line wants to know
        () = ended => Err(Failure::new(
            Exit::General,
            ErrorKind::ConnectionClosed,
            format_args!("the peer closed the connection: {}", tally.describe(args.count)),
        )),
    };
    client.close(CLOSING).await;
    result
}
