//! Version 1 of the PROXY protocol: one line of text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Client, Header, Parsed, Whom, invalid};
use crate::error::WireError;

/// The longest line, its end included, as the specification has it.
const LONGEST: usize = 107;
/// The shortest: `PROXY UNKNOWN`.
pub(super) const SHORTEST: usize = 15;
const NAME: &[u8] = b"PROXY ";

pub(super) fn parse(input: &[u8]) -> Result<Parsed, WireError> {
    if !input.starts_with(NAME) && !NAME.starts_with(input) {
        return Err(invalid(
            "no PROXY header: neither version begins with these bytes",
        ));
    }
    let line = input.get(..LONGEST).unwrap_or(input);
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        if line.len() >= LONGEST {
            return Err(invalid("a PROXY header of more than 107 bytes"));
        }
        // what ends in \r may end with the next byte, all else needs two more
        let rest = if line.ends_with(b"\r") { 1 } else { 2 };
        return Ok(Parsed::Needed(SHORTEST.max(line.len() + rest)));
    };
    let text = line.get(NAME.len()..end);
    let text = text.and_then(|text| text.strip_suffix(b"\r"));
    let text = text.ok_or_else(|| invalid("a PROXY header that does not end in \\r\\n"))?;
    let text = std::str::from_utf8(text).map_err(|_| invalid("a PROXY header with no text"))?;
    Ok(Parsed::Header(Header {
        length: end + 1,
        whom: whom(text)?,
    }))
}

/// What follows the name.
fn whom(text: &str) -> Result<Whom, WireError> {
    let mut fields = text.split(' ');
    let family = fields.next();
    if family == Some("UNKNOWN") {
        // whatever follows says nothing
        return Ok(Whom::Unknown);
    }
    let mut take = || fields.next().unwrap_or_default();
    let (source, destination, from, to) = (take(), take(), take(), take());
    if fields.next().is_some() {
        return Err(invalid("a PROXY header with more than four fields"));
    }
    let ends = match family {
        Some("TCP4") => both::<Ipv4Addr>(source, destination),
        Some("TCP6") => both::<Ipv6Addr>(source, destination),
        _ => return Err(invalid("a PROXY header for neither TCP4, TCP6 nor UNKNOWN")),
    };
    let (source, destination) =
        ends.ok_or_else(|| invalid("a PROXY header with an address that is none"))?;
    match (port(from), port(to)) {
        (Some(from), Some(to)) => Ok(Whom::Client(Client {
            source: SocketAddr::new(source, from),
            destination: SocketAddr::new(destination, to),
        })),
        _ => Err(invalid("a PROXY header with a port that is none")),
    }
}

fn both<T: FromStr + Into<IpAddr>>(a: &str, b: &str) -> Option<(IpAddr, IpAddr)> {
    let parse = |text: &str| text.parse::<T>().ok().map(Into::into);
    parse(a).zip(parse(b))
}

/// Digits without a sign or zeros in front.
fn port(text: &str) -> Option<u16> {
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| canonical)
}
