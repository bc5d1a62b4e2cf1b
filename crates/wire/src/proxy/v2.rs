//! Version 2 of the PROXY protocol: binary, with extensions (TLVs).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc, Table};

use super::{Client, Header, MAX_HEADER, Parsed, Whom, invalid};
use crate::error::WireError;

/// What it begins with: no text, and no protocol that this can be taken for.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The part that every header has: signature, version and command, family, length.
pub(super) const FIXED: usize = 16;

/// The extension that holds the checksum, and the bytes of that.
const CHECKSUM: u8 = 0x03;
const CHECKSUM_LEN: usize = 4;

static CRC32C: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISCSI);

/// `input` begins with the signature, or is a part of it.
pub(super) fn parse(input: &[u8]) -> Result<Parsed, WireError> {
    let Some((fixed, rest)) = input.split_first_chunk::<FIXED>() else {
        return Ok(Parsed::Needed(FIXED));
    };
    let [.., command, family, high, low] = *fixed;
    let rest_len = usize::from(u16::from_be_bytes([high, low]));
    let length = FIXED + rest_len;
    if command >> 4 != 2 {
        return Err(invalid("a binary PROXY header that is not of version 2"));
    }
    if length > MAX_HEADER {
        return Err(WireError::too_large(length as u64, MAX_HEADER));
    }
    let Some(rest) = rest.get(..rest_len) else {
        return Ok(Parsed::Needed(length));
    };
    let whom = match command & 0xf {
        // the proxy for itself: whatever follows says nothing
        0 => Whom::Itself,
        1 => {
            let (client, extensions) = client(family, rest)?;
            check_extensions(input.get(..length).unwrap_or_default(), extensions)?;
            client.map_or(Whom::Unknown, Whom::Client)
        }
        _ => return Err(invalid("a PROXY header with an unknown command")),
    };
    Ok(Parsed::Header(Header { length, whom }))
}

/// The addresses, and what follows them.
fn client(family: u8, rest: &[u8]) -> Result<(Option<Client>, &[u8]), WireError> {
    let short = || invalid("a PROXY header that is too short for its addresses");
    match family {
        // not known to the proxy
        0x00 => Ok((None, rest)),
        0x11 => {
            let (ends, rest) = rest.split_first_chunk::<12>().ok_or_else(short)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *ends;
            let source = Ipv4Addr::new(a, b, c, d).into();
            let destination = Ipv4Addr::new(e, f, g, h).into();
            Ok((Some(ends_of(source, destination, ports)), rest))
        }
        0x21 => {
            let (source, rest) = rest.split_first_chunk::<16>().ok_or_else(short)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or_else(short)?;
            let (ports, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            let source = Ipv6Addr::from(*source).into();
            let destination = Ipv6Addr::from(*destination).into();
            Ok((Some(ends_of(source, destination, *ports)), rest))
        }
        // Unix sockets of the proxy's machine: two paths, which say nothing about a client here
        0x31 => {
            let (_, rest) = rest.split_first_chunk::<216>().ok_or_else(short)?;
            Ok((None, rest))
        }
        0x12 | 0x22 | 0x32 => Err(invalid("a PROXY header for datagrams, on a stream")),
        _ => Err(invalid("a PROXY header with an unknown address family")),
    }
}

fn ends_of(source: IpAddr, destination: IpAddr, ports: [u8; 4]) -> Client {
    let [a, b, c, d] = ports;
    Client {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    }
}

/// Goes over the extensions of a whole header, which are its last bytes.
fn check_extensions(header: &[u8], mut rest: &[u8]) -> Result<(), WireError> {
    let mut seen = false;
    while !rest.is_empty() {
        let cut = || invalid("a PROXY header with an extension that is cut short");
        let (head, after) = rest.split_first_chunk::<3>().ok_or_else(cut)?;
        let [kind, high, low] = *head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, after) = after.split_at_checked(length).ok_or_else(cut)?;
        if kind == CHECKSUM {
            let value = <[u8; CHECKSUM_LEN]>::try_from(value)
                .map_err(|_| invalid("a PROXY header with a checksum that is not of 4 bytes"))?;
            if std::mem::replace(&mut seen, true) {
                return Err(invalid("a PROXY header with two checksums"));
            }
            let behind = after.len();
            if checksum(header, behind) != Some(u32::from_be_bytes(value)) {
                return Err(invalid("a PROXY header whose checksum is wrong"));
            }
        }
        rest = after;
    }
    Ok(())
}

/// The checksum of a header, in which its own 4 bytes, with `behind` more after them, count as 0.
pub(super) fn checksum(header: &[u8], behind: usize) -> Option<u32> {
    let end = header.len().checked_sub(behind)?;
    let start = end.checked_sub(CHECKSUM_LEN)?;
    let mut digest = CRC32C.digest();
    digest.update(header.get(..start)?);
    digest.update(&[0; CHECKSUM_LEN]);
    digest.update(header.get(end..)?);
    Some(digest.finalize())
}
