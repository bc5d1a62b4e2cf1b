//! Why a connection ends, in the words of WebSocket: the codes of RFC 6455 section 7.4.

use network_system_core::{CloseReason, Error, ErrorKind};
use sockudo_ws::error::CloseReason as Words;

/// Bytes of a reason in words, since a control frame has 125 at most.
const MOST_WORDS: usize = 123;

const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const PROTOCOL: u16 = 1002;
const INVALID: u16 = 1007;
const POLICY: u16 = 1008;
const TOO_LARGE: u16 = 1009;
const INTERNAL: u16 = 1011;
/// What says that a peer has given no code; never sent.
pub(super) const NONE: u16 = 1005;

/// What a session that ends for this reason tells its peer, where it tells it anything: one that does not
/// read, or whose handler has panicked, is only cut off. What only concerns us, such as the error
/// of a handler, is not told in words.
pub(super) fn words(reason: &CloseReason, code: Option<u16>) -> Words {
    let (known, text) = match reason {
        CloseReason::Requested(text) => (NORMAL, text.clone()),
        CloseReason::Refused(text) => (POLICY, text.clone()),
        CloseReason::Shutdown | CloseReason::MaxAge | CloseReason::Idle | CloseReason::Silent => {
            (GOING_AWAY, reason.to_string())
        }
        CloseReason::Rate => (POLICY, reason.to_string()),
        CloseReason::Protocol(error) => (of_error(error), String::new()),
        CloseReason::Handler(_) => (INTERNAL, String::new()),
        _ => (NORMAL, String::new()),
    };
    let code = code.unwrap_or(known);
    let code = if Words::is_valid_code(code) {
        code
    } else {
        NORMAL
    };
    Words::new(code, cut(text))
}

/// The longest start of `text` that fits.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MOST_WORDS));
    text
}

/// The code for an error that was not ours to name: one of what lies above WebSocket.
fn of_error(error: &Error) -> u16 {
    match error.kind() {
        ErrorKind::MessageTooLarge => TOO_LARGE,
        _ => PROTOCOL,
    }
}

/// What was wrong with the peer's bytes, as we and as the peer are told.
pub(super) fn broken(error: sockudo_ws::Error, limit: usize) -> (Error, Words) {
    use sockudo_ws::Error as Wrong;
    let protocol = || Error::new(ErrorKind::Protocol, "read a WebSocket frame of");
    let (error, code) = match error {
        Wrong::InvalidUtf8 => (protocol().because("text is not valid UTF-8"), INVALID),
        Wrong::MessageTooLarge | Wrong::FrameTooLarge => {
            let error = Error::new(ErrorKind::MessageTooLarge, "read a WebSocket message of")
                .because(format_args!("it is larger than {limit} bytes"))
                .advice("raise max_message, or send smaller messages");
            (error, TOO_LARGE)
        }
        Wrong::Compression(what) => (protocol().because(what), INVALID),
        Wrong::Protocol(what) | Wrong::InvalidFrame(what) => (protocol().because(what), PROTOCOL),
        Wrong::InvalidCloseCode(code) => {
            let error = protocol().because(format_args!("{code} is no code to close with"));
            (error, PROTOCOL)
        }
        other => (protocol().because(other), PROTOCOL),
    };
    (error, Words::new(code, String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_code() {
        let error = |kind| Error::new(kind, "do something");
        for (reason, code) in [
            (CloseReason::Requested("bye".into()), 1000),
            (CloseReason::Peer, 1000),
            (CloseReason::Shutdown, 1001),
            (CloseReason::MaxAge, 1001),
            (CloseReason::Idle, 1001),
            (CloseReason::Silent, 1001),
            (CloseReason::Protocol(error(ErrorKind::Protocol)), 1002),
            (CloseReason::Refused("no".into()), 1008),
            (CloseReason::Rate, 1008),
            (
                CloseReason::Protocol(error(ErrorKind::MessageTooLarge)),
                1009,
            ),
            (CloseReason::Handler(error(ErrorKind::Internal)), 1011),
        ] {
            assert_eq!(words(&reason, None).code, code, "{reason}");
        }
    }

    #[test]
    fn codes_of_sessions_go_first_and_words_are_cut() {
        let reason = CloseReason::Requested("ä".repeat(100));
        let said = words(&reason, Some(4321));
        assert_eq!((said.code, said.reason.len()), (4321, 122));
        for reserved in [0, 999, 1004, 1005, 1006, 1015, 2000, 5000] {
            assert_eq!(words(&reason, Some(reserved)).code, 1000, "{reserved}");
        }
    }
}
