//! Addresses as URLs: [`Address`], and errors that point at the bad part.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Where to listen or to connect: `scheme://host:port?key=value`, `unix:///path`, `memory://name`.
///
/// The scheme picks the transport. The query changes settings for this one address, such as
/// `tcp://0.0.0.0:8080?framing=lines`.
///
/// ```
/// use network_system_core::Address;
///
/// let address: Address = "tcp://[::1]:8080?framing=lines".parse().unwrap();
/// assert_eq!(address.scheme(), "tcp");
/// assert_eq!(address.host(), "::1");
/// assert_eq!(address.port(), Some(8080));
/// assert_eq!(address.query("framing"), Some("lines"));
///
/// let error = "tcp://localhost:99999".parse::<Address>().unwrap_err();
/// assert!(error.to_string().contains("port"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    text: String,
    scheme: String,
    host: String,
    port: Option<u16>,
    path: String,
    query: Vec<Parameter>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameter {
    key: String,
    value: String,
    key_span: Range<usize>,
    value_span: Range<usize>,
}

/// An address that cannot be used, and which part of it is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    text: String,
    span: Range<usize>,
    reason: String,
}

impl std::error::Error for AddressError {}

impl AddressError {
    /// The byte range of the bad part.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}

impl fmt::Display for AddressError {
    /// The reason, then the address with the bad part underlined.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = self
            .text
            .get(..self.span.start)
            .map_or(0, |head| head.chars().count());
        let width = self
            .text
            .get(self.span.clone())
            .map_or(1, |part| part.chars().count().max(1));
        writeln!(f, "{}", self.reason)?;
        writeln!(f, "  {}", self.text)?;
        write!(f, "  {:column$}{:^<width$}", "", "")
    }
}

impl Address {
    /// The scheme in lower case, such as `tcp`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The host or name: a name, an IPv4 address, or an IPv6 address without its brackets. Empty
    /// means any local address for listeners.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The path with its leading slash; empty when there is none.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of a query parameter.
    #[must_use]
    pub fn query(&self, key: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|p| p.key == key)
            .map(|p| p.value.as_str())
    }

    /// The whole text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same address with another port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        let mut text = format!("{}://{host}:{port}{}", self.scheme, self.path);
        if let Some((_, query)) = self.text.split_once('?') {
            text = format!("{text}?{query}");
        }
        Self {
            text,
            port: Some(port),
            ..self.clone()
        }
    }

    /// Checks that every query parameter is one of `known`.
    ///
    /// # Errors
    /// Points at the first unknown key.
    pub fn check_query(&self, known: &[&str]) -> Result<(), AddressError> {
        match self.query.iter().find(|p| !known.contains(&p.key.as_str())) {
            None => Ok(()),
            Some(p) => Err(self.error(
                p.key_span.clone(),
                format!(
                    "unknown parameter '{}'; known are {}",
                    p.key,
                    known.join(", ")
                ),
            )),
        }
    }

    /// Checks that no query parameter is one of `unwanted`.
    pub(crate) fn check_query_without(&self, unwanted: &[&str]) -> Result<(), AddressError> {
        match self
            .query
            .iter()
            .find(|p| unwanted.contains(&p.key.as_str()))
        {
            None => Ok(()),
            Some(p) => Err(self.error(
                p.key_span.clone(),
                format!("'{}' is for addresses to listen on", p.key),
            )),
        }
    }

    /// The query without the parameters of these names, as it was given.
    pub(crate) fn query_without(&self, known: &[&str]) -> String {
        let others = self
            .query
            .iter()
            .filter(|p| !known.contains(&p.key.as_str()));
        let parts = others.map(|p| {
            let (start, end) = (p.key_span.start, p.value_span.end.max(p.key_span.end));
            self.text.get(start..end).unwrap_or_default()
        });
        parts.collect::<Vec<_>>().join("&")
    }

    /// Parses the value of a query parameter, if it is there.
    ///
    /// # Errors
    /// Points at the value when it does not parse.
    pub fn parse_query<T: FromStr<Err: fmt::Display>>(
        &self,
        key: &str,
    ) -> Result<Option<T>, AddressError> {
        let Some(p) = self.query.iter().find(|p| p.key == key) else {
            return Ok(None);
        };
        p.value
            .parse()
            .map(Some)
            .map_err(|e: T::Err| self.error(p.value_span.clone(), e.to_string()))
    }

    /// The host and the port, both of which must be there.
    ///
    /// # Errors
    /// Points at where the port should be.
    pub fn host_and_port(&self) -> Result<(&str, u16), AddressError> {
        match self.port {
            Some(port) => Ok((&self.host, port)),
            None => {
                let end = self.text.find('?').unwrap_or(self.text.len());
                Err(self.error(
                    end..end,
                    format!("a port is missing, as in {}:8080", &self.text[..end]),
                ))
            }
        }
    }

    /// An error about the scheme, for resolvers that do not know it.
    #[must_use]
    pub fn unknown_scheme(&self, known: &[&str]) -> AddressError {
        let list: Vec<String> = known.iter().map(|scheme| format!("{scheme}://")).collect();
        self.error(
            0..self.scheme.len(),
            format!(
                "unknown scheme '{}'; known are {}",
                self.scheme,
                list.join(", ")
            ),
        )
    }

    fn error(&self, span: Range<usize>, reason: String) -> AddressError {
        AddressError {
            text: self.text.clone(),
            span,
            reason,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let fail = |span: Range<usize>, reason: String| {
            Err(AddressError {
                text: text.to_owned(),
                span,
                reason,
            })
        };
        let Some(scheme_end) = text.find("://") else {
            return fail(
                0..text.len(),
                "a scheme is missing, as in tcp://127.0.0.1:8080".into(),
            );
        };
        let scheme = &text[..scheme_end];
        if let Some(at) = scheme.find(|c: char| !c.is_ascii_alphanumeric() && c != '+') {
            return fail(at..at + 1, "a scheme has only letters and digits".into());
        }
        if scheme.is_empty() {
            return fail(0..3, "a scheme is missing before ://, as in tcp://".into());
        }
        let start = scheme_end + 3;
        if let Some(at) = text[start..].find(|c: char| c.is_whitespace() || c.is_control()) {
            return fail(
                start + at..start + at + 1,
                "white space is not allowed here".into(),
            );
        }
        let query_at = text[start..].find('?').map_or(text.len(), |at| start + at);
        let path_at = text[start..query_at]
            .find('/')
            .map_or(query_at, |at| start + at);
        let (host, port) = match parse_authority(&text[start..path_at]) {
            Ok(parts) => parts,
            Err((span, reason)) => return fail(start + span.start..start + span.end, reason),
        };
        let query = match parse_query(text, query_at) {
            Ok(query) => query,
            Err((span, reason)) => return fail(span, reason),
        };
        Ok(Self {
            text: text.to_owned(),
            scheme: scheme.to_ascii_lowercase(),
            host,
            port,
            path: text[path_at..query_at].to_owned(),
            query,
        })
    }
}

type Problem = (Range<usize>, String);

/// Splits `host:port`, `[v6]:port` or `name`; spans count from the start of `text`.
fn parse_authority(text: &str) -> Result<(String, Option<u16>), Problem> {
    if let Some(at) = text.find('@') {
        return Err((
            0..at + 1,
            "user names and passwords are not supported here".into(),
        ));
    }
    let (host, rest_at) = if let Some(inner) = text.strip_prefix('[') {
        let Some(end) = inner.find(']') else {
            return Err((
                0..text.len(),
                "the closing ] of an IPv6 address is missing".into(),
            ));
        };
        let host = &inner[..end];
        // a zone, as in fe80::1%eth0, is no part of the address itself
        let bare = host.split_once('%').map_or(host, |(bare, _)| bare);
        if bare.parse::<std::net::Ipv6Addr>().is_err() {
            return Err((1..1 + end, format!("'{host}' is not an IPv6 address")));
        }
        (host, end + 2)
    } else {
        let end = text.find(':').unwrap_or(text.len());
        if text[end..].matches(':').count() > 1 {
            return Err((
                0..text.len(),
                "an IPv6 address needs brackets, as in [::1]:8080".into(),
            ));
        }
        (&text[..end], end)
    };
    match text[rest_at..].strip_prefix(':') {
        None if rest_at < text.len() => Err((
            rest_at..text.len(),
            "only a port may follow the address, as in :8080".into(),
        )),
        None => Ok((host.to_owned(), None)),
        Some(port) => match port.parse() {
            Ok(number) if port.bytes().all(|b| b.is_ascii_digit()) => {
                Ok((host.to_owned(), Some(number)))
            }
            _ => Err((
                rest_at + 1..text.len(),
                format!("'{port}' is not a port: a number from 0 to 65535 is needed"),
            )),
        },
    }
}

/// Splits `?key=value&key=value`; spans count from the start of the whole text.
fn parse_query(text: &str, query_at: usize) -> Result<Vec<Parameter>, Problem> {
    let mut found = Vec::new();
    let mut at = query_at + 1;
    for part in text.get(at..).unwrap_or_default().split('&') {
        let span = at..at + part.len();
        at = span.end + 1;
        if part.is_empty() {
            continue;
        }
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if found.iter().any(|p: &Parameter| p.key == key) {
            return Err((span, format!("'{key}' is given twice")));
        }
        let value_at = (span.start + key.len() + 1).min(span.end);
        found.push(Parameter {
            key: key.to_owned(),
            value: value.to_owned(),
            key_span: span.start..span.start + key.len(),
            value_span: value_at..span.end,
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> Address {
        text.parse().expect(text)
    }

    #[test]
    fn parts_are_found() {
        let a = ok("TCP://example.org:80/a/b?framing=lines&envelope=true");
        assert_eq!(
            (a.scheme(), a.host(), a.port()),
            ("tcp", "example.org", Some(80))
        );
        assert_eq!(a.path(), "/a/b");
        assert_eq!(a.query("envelope"), Some("true"));
        assert_eq!(a.query("nothing"), None);
        assert_eq!(ok("unix:///tmp/a:b.sock").path(), "/tmp/a:b.sock");
        assert_eq!(ok("memory://bus").host(), "bus");
        assert_eq!(ok("tcp://:8080").host(), "");
        assert_eq!(
            ok("tcp://[::1]:8080?a=1").with_port(9).as_str(),
            "tcp://[::1]:9?a=1"
        );
    }

    #[test]
    fn errors_point_at_the_bad_part() {
        for (text, bad) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("://x", "://"),
            ("t_p://x:1", "_"),
            ("tcp://h:99999", "99999"),
            ("tcp://h:+80", "+80"),
            ("tcp://h:", ""),
            ("tcp://h:80a?x=1", "80a"),
            ("tcp://::1:80", "::1:80"),
            ("tcp://[::1", "[::1"),
            ("tcp://[zz]:1", "zz"),
            ("tcp://[::1]8080", "8080"),
            ("tcp://me@host:1", "me@"),
            ("tcp://a b:1", " "),
            ("tcp://h:1?a=1&a=2", "a=2"),
        ] {
            let error = text.parse::<Address>().expect_err(text);
            assert_eq!(&text[error.span()], bad, "{error}");
        }
        let error = ok("tcp://h:1?framing=lines&bogus=1")
            .check_query(&["framing"])
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown parameter 'bogus'; known are framing\n  \
             tcp://h:1?framing=lines&bogus=1\n                          ^^^^^"
        );
        let error = ok("tcp://h:1?n=x1").parse_query::<u8>("n").unwrap_err();
        assert_eq!(error.span(), 12..14);
        assert!(ok("tcp://h").host_and_port().is_err());
    }
}
