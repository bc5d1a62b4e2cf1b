//! What is sent: the lines of standard input, or whole files, read by a thread of its own so that
//! a person who types slowly holds nothing up.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use network_system::{ErrorKind, Message};
use tokio::sync::mpsc;

use crate::failure::{Exit, Failure, Result};

/// Lines are read and handed over in blocks of about this size.
const BLOCK: usize = 64 * 1024;

type Block = Result<Vec<Message>>;

/// Messages to send, as they are read.
pub struct Input(mpsc::Receiver<Block>);

impl Input {
    /// Each line of standard input as a message, without its line end (LF or CR LF).
    pub fn lines(max_message: usize) -> Self {
        Self::read(move |sender| {
            let result = read_lines(
                BufReader::with_capacity(BLOCK, io::stdin()),
                max_message,
                |b| sender.blocking_send(Ok(b)).is_ok(),
            );
            if let Err(failure) = result {
                let _ = sender.blocking_send(Err(failure));
            }
        })
    }

    /// Each file as a message; `-` is standard input.
    pub fn files(paths: Vec<PathBuf>, max_message: usize) -> Self {
        Self::read(move |sender| {
            for path in paths {
                let message = read_file(&path, max_message).map(|message| vec![message]);
                if sender.blocking_send(message).is_err() {
                    return;
                }
            }
        })
    }

    fn read(work: impl FnOnce(mpsc::Sender<Block>) + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(2);
        // nobody waits for the thread: it may hang in a read when the process ends
        std::thread::spawn(move || work(sender));
        Self(receiver)
    }

    /// The messages that have been read meanwhile, at least one; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// The input cannot be read, or holds a message above the limit.
    pub async fn next(&mut self) -> Result<Option<Vec<Message>>> {
        self.0.recv().await.transpose()
    }
}

/// Gives the lines of `input` to `deliver` in blocks, each as soon as reading on would wait; until
/// the end, or until `deliver` says that nobody wants more.
fn read_lines<R: Read>(
    mut input: BufReader<R>,
    max_message: usize,
    mut deliver: impl FnMut(Vec<Message>) -> bool,
) -> Result<()> {
    let mut block = Vec::new();
    let mut size = 0;
    for number in 1_u64.. {
        let mut line = Vec::new();
        // the line end, and one byte that shows that the line is too long
        let most = max_message as u64 + 3;
        let read = (&mut input).take(most).read_until(b'\n', &mut line);
        read.map_err(|error| Failure::io("read standard input", &error))?;
        if line.is_empty() {
            break;
        }
        let end = line
            .strip_suffix(b"\n")
            .map_or(line.len(), |l| l.strip_suffix(b"\r").unwrap_or(l).len());
        line.truncate(end);
        if line.len() > max_message {
            return Err(too_large(
                &format!("line {number} of the input"),
                max_message,
            ));
        }
        size += line.len();
        // text, where the transport can tell
        block.push(match String::from_utf8(line) {
            Ok(text) => Message::from(text),
            Err(error) => Message::from(error.into_bytes()),
        });
        let more = size < BLOCK && input.buffer().contains(&b'\n');
        if !more && !deliver(std::mem::take(&mut block)) {
            return Ok(());
        }
        size = if more { size } else { 0 };
    }
    if !block.is_empty() {
        deliver(block);
    }
    Ok(())
}

fn read_file(path: &Path, max_message: usize) -> Result<Message> {
    let failed = |error: io::Error| Failure::io(format_args!("read {}", path.display()), &error);
    let mut bytes = Vec::new();
    let most = max_message as u64 + 1;
    if path == Path::new("-") {
        io::stdin().take(most).read_to_end(&mut bytes)
    } else {
        File::open(path)
            .map_err(failed)?
            .take(most)
            .read_to_end(&mut bytes)
    }
    .map_err(failed)?;
    if bytes.len() > max_message {
        return Err(too_large(&path.display().to_string(), max_message));
    }
    Ok(bytes.into())
}

fn too_large(what: &str, max_message: usize) -> Failure {
    let text = format!(
        "{what} is larger than a message may be: {max_message} bytes (change it on both sides, \
         here with ?max_message=BYTES in the URL)"
    );
    Failure::new(Exit::General, ErrorKind::MessageTooLarge, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8], capacity: usize) -> Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        read_lines(BufReader::with_capacity(capacity, input), 8, |block| {
            assert!(!block.is_empty());
            found.extend(block.iter().map(|message| message.to_vec()));
            true
        })
        .map(|()| found)
    }

    #[test]
    fn every_line_is_a_message_however_it_is_read() {
        for capacity in [1, 2, 3, 100] {
            let found = lines(b"one\r\n\ntwo\r\r\n12345678\r\nlast", capacity).unwrap();
            let want: [&[u8]; 5] = [b"one", b"", b"two\r", b"12345678", b"last"];
            assert_eq!(found, want, "{capacity}");
        }
        assert!(lines(b"", 10).unwrap().is_empty());
    }

    #[test]
    fn a_line_above_the_limit_is_refused_without_reading_all_of_it() {
        for long in [&b"ok\n123456789\n"[..], b"ok\n12345678901234567890"] {
            let error = lines(long, 100).unwrap_err().to_string();
            assert!(
                error.contains("line 2") && error.contains("8 bytes"),
                "{error}"
            );
        }
    }
}
