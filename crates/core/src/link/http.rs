//! What is known from HTTP about a link that began with a request: [`HttpInfo`]; and how such a link
//! ends: [`Goodbye`].

use std::fmt;

/// The request that a link began with, and what was agreed on. On a client's side the headers are
/// those of the answer.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpInfo {
    /// The path that was asked for, as it was sent, such as `/chat`.
    pub path: String,
    /// What came behind its `?`.
    pub query: Option<String>,
    /// The fields of the peer's head, in their order; names are in lower case.
    pub headers: Vec<(String, String)>,
    /// The subprotocol that was agreed on.
    pub subprotocol: Option<String>,
    /// The extensions that were agreed on, as they stand in the answer.
    pub extensions: Option<String>,
}

impl HttpInfo {
    /// The first field of this name, whatever its case.
    ///
    /// ```
    /// # fn f(session: &network_system_core::Session) -> Option<&str> {
    /// session.info().http.as_ref()?.header("User-Agent")
    /// # }
    /// ```
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for HttpInfo {
    /// Without what may be secret: the query, and the values of headers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpInfo")
            .field("path", &self.path)
            .field("headers", &self.headers.len())
            .field("subprotocol", &self.subprotocol)
            .field("extensions", &self.extensions)
            .finish_non_exhaustive()
    }
}

/// What a peer has said when it closed, on transports that have words for it: the close frame of
/// WebSocket (RFC 6455 section 5.5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// The code: 1000 is normal, 1001 going away, 1005 means that none was sent; applications have 4000
    /// to 4999.
    pub code: u16,
    /// The reason in words, which may be empty.
    pub text: String,
}

impl fmt::Display for Goodbye {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.as_str() {
            "" => write!(f, "{}", self.code),
            text => write!(f, "{} {text}", self.code),
        }
    }
}
