//! Plain messages: sends and prints at the same time, and decides when it is over.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use network_system::{ErrorKind, Message};
use tokio::time::Instant;

use super::input::Input;
use super::print::Printer;
use super::{ConnectArgs, Tally, greet};
use crate::failure::{Exit, Failure, Result};

/// After sending has failed, what the peer still had to say may take this long.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Connects, then sends `input` and prints what comes.
///
/// # Errors
/// There is no connection, or it ends before everything was sent and received.
pub async fn run(
    args: &ConnectArgs,
    interactive: bool,
    input: impl FnOnce() -> Input,
    mut printer: Printer,
    tally: &Tally,
) -> Result<()> {
    let config = args.client_config();
    let connection = network_system::connect_with(&args.url, &config).await;
    let connection = connection.map_err(|error| Failure::connecting(&error))?;
    if interactive {
        greet(args);
    }
    let (mut receiver, mut sender) = connection.split();
    let mut input = input();
    let sending = async move {
        while let Some(messages) = input.next().await? {
            // what is at hand leaves in one write
            for message in messages {
                if let Err(error) = sender.feed(&message) {
                    if !error.is_full() {
                        return Err(error.into());
                    }
                    sender.flush().await?;
                    sender.feed(message)?;
                }
                tally.sent();
            }
            sender.flush().await?;
        }
        if !args.keep_open && args.count.is_none() {
            sender.close().await?;
            return Ok(None);
        }
        Ok(Some(sender))
    };
    let mut sending = pin!(sending);
    let mut open = None;
    let mut end = End {
        args,
        interactive,
        tally,
        sent: None,
        active: Instant::now(),
    };
    while !end.enough() {
        let receiving = async {
            if let Some(message) = at_once(receiver.receive()).await {
                return Ok(message?);
            }
            printer.flush()?;
            Ok::<_, Failure>(receiver.receive().await?)
        };
        tokio::select! {
            biased;
            message = receiving => match message {
                Ok(Some(message)) => {
                    end.active = Instant::now();
                    printer.message(&message)?;
                    tally.received();
                }
                Ok(None) => {
                    printer.flush()?;
                    return end.by_peer();
                }
                Err(failure) => return end.by_failure(failure),
            },
            result = &mut sending, if end.sent.is_none() => {
                end.active = Instant::now();
                end.sent = Some(result.map(|sender| open = sender));
            }
            () = end.silence() => {
                printer.flush()?;
                return end.by_silence();
            }
        }
    }
    printer.flush()?;
    if let Some(sender) = open {
        // as good manners are: there are transports with words for it
        let _ = tokio::time::timeout(LAST_WORDS, sender.close()).await;
    }
    end.sent.unwrap_or(Ok(()))
}

/// The result of `receive`, if it is there already.
async fn at_once(
    receive: impl Future<Output = network_system::Result<Option<Message>>>,
) -> Option<network_system::Result<Option<Message>>> {
    let mut receive = pin!(receive);
    poll_fn(|cx| match receive.as_mut().poll(cx) {
        Poll::Ready(message) => Poll::Ready(Some(message)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// When it is over, and how it ended.
struct End<'a> {
    args: &'a ConnectArgs,
    interactive: bool,
    tally: &'a Tally,
    /// How sending ended, once it has.
    sent: Option<Result<()>>,
    /// When something happened last.
    active: Instant,
}

impl End<'_> {
    /// As many messages have come as are wanted.
    fn enough(&self) -> bool {
        self.tally.has(self.args.count)
    }

    /// Waits until nothing more is to be expected.
    async fn silence(&self) {
        let wait = match &self.sent {
            None => None,
            Some(Err(_)) => Some(LAST_WORDS),
            Some(Ok(())) if self.args.count.is_some() => None,
            Some(Ok(())) => self.args.wait.0,
        };
        match wait {
            Some(wait) => tokio::time::sleep_until(self.active + wait).await,
            None => std::future::pending().await,
        }
    }

    /// What it means that nothing has come for so long.
    fn by_silence(self) -> Result<()> {
        self.sent.unwrap_or(Ok(()))?;
        if self.tally.sent.get() == 0 || self.tally.received.get() > 0 {
            return Ok(());
        }
        // an answer that is only slow would be lost without a word
        let wait = self.args.wait.0.unwrap_or_default();
        let text = format!(
            "nothing came within {}: {} (--wait waits longer)",
            humantime::format_duration(wait),
            self.tally.describe(None),
        );
        Err(Failure::new(Exit::Timeout, ErrorKind::Timeout, text))
    }

    /// What it means that the peer has closed.
    fn by_peer(self) -> Result<()> {
        let too_early = match self.sent {
            Some(Err(failure)) => return Err(failure),
            Some(Ok(())) => self.args.count.is_some(),
            None => !self.interactive || self.args.count.is_some(),
        };
        if !too_early {
            if self.interactive && self.sent.is_none() {
                eprintln!("the peer closed the connection");
            }
            return Ok(());
        }
        let so_far = self.tally.describe(self.args.count);
        let text = format!("the peer closed the connection: {so_far}");
        Err(Failure::new(
            Exit::General,
            ErrorKind::ConnectionClosed,
            text,
        ))
    }

    /// Why receiving failed, unless sending had failed before.
    fn by_failure(self, failure: Failure) -> Result<()> {
        self.sent.unwrap_or(Ok(())).and(Err(failure))
    }
}
