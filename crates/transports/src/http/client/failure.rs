//! reqwest's errors in terms of this library.

use std::error::Error as StdError;
use std::io;

use network_system_core::{Error, ErrorKind};

/// What an error of reqwest's means.
pub(super) fn of(error: reqwest::Error, action: &'static str) -> Error {
    let error = error.without_url();
    let refused = find::<io::Error>(&error).map(io::Error::kind);
    #[cfg(feature = "tls")]
    if let Some(tls) = find::<rustls::Error>(&error) {
        return crate::tls::of_client(tls.clone()).caused_by(error);
    }
    let kind = match () {
        () if error.is_builder() => ErrorKind::InvalidArgument,
        () if error.is_timeout() && error.is_connect() => ErrorKind::ConnectionTimeout,
        () if error.is_timeout() => ErrorKind::Timeout,
        () if error.is_redirect() => ErrorKind::Protocol,
        () if refused == Some(io::ErrorKind::ConnectionRefused) => ErrorKind::ConnectionRefused,
        () if error.is_connect() => ErrorKind::ConnectionFailed,
        () if error.is_body() => ErrorKind::ReceiveFailed,
        () if error.is_decode() && find::<hyper::Error>(&error).is_some() => {
            ErrorKind::ReceiveFailed
        }
        () if error.is_decode() => ErrorKind::Protocol,
        () if is_protocol(&error) => ErrorKind::Protocol,
        () => ErrorKind::ConnectionClosed,
    };
    Error::new(kind, action)
        .because(chain(&error))
        .caused_by(error)
}

/// Whether the server has spoken no HTTP.
fn is_protocol(error: &reqwest::Error) -> bool {
    find::<hyper::Error>(error).is_some_and(|error| error.is_parse() || error.is_parse_too_large())
}

/// The innermost error says why.
fn chain(error: &dyn StdError) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// The first error of this type among the causes.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // an error of a socket may have another one inside, which is not its source
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
