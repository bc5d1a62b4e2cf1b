//! Property tests: what any proxy may say is understood, however it arrives.
#![allow(clippy::unwrap_used, clippy::panic)] // as tests may

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use network_system_wire::proxy::{Client, Header, MAX_HEADER, Parsed, Whom, parse};
use proptest::prelude::*;

/// What a reader that asks as it is told, and gets less now and then, makes of a stream.
fn read(stream: &[u8], mut cuts: impl Iterator<Item = usize>) -> (Header, usize) {
    let mut have = 0;
    loop {
        match parse(&stream[..have]).unwrap() {
            Parsed::Header(header) => return (header, have),
            Parsed::Needed(needed) => {
                assert!(needed > have && needed <= MAX_HEADER);
                have += cuts.next().unwrap_or(usize::MAX).clamp(1, needed - have);
            }
        }
    }
}

fn ends() -> impl Strategy<Value = Client> {
    let v4 = any::<(u32, u32)>().prop_map(|(a, b)| {
        let ip = |n| IpAddr::V4(Ipv4Addr::from(n));
        (ip(a), ip(b))
    });
    let v6 = any::<(u128, u128)>().prop_map(|(a, b)| {
        let ip = |n| IpAddr::V6(Ipv6Addr::from(n));
        (ip(a), ip(b))
    });
    let both = prop_oneof![v4, v6];
    (both, any::<(u16, u16)>()).prop_map(|((source, destination), (from, to))| Client {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    })
}

fn line(client: &Client) -> Vec<u8> {
    let Client {
        source,
        destination,
    } = client;
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.port(), destination.port());
    let (source, destination) = (source.ip(), destination.ip());
    format!("PROXY {family} {source} {destination} {from} {to}\r\n").into_bytes()
}

fn binary(client: &Client, extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut rest = Vec::new();
    for end in [client.source, client.destination] {
        match end.ip() {
            IpAddr::V4(ip) => rest.extend(ip.octets()),
            IpAddr::V6(ip) => rest.extend(ip.octets()),
        }
    }
    rest.extend(client.source.port().to_be_bytes());
    rest.extend(client.destination.port().to_be_bytes());
    for (kind, value) in extensions {
        rest.push(*kind);
        rest.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        rest.extend(value);
    }
    let family = if client.source.is_ipv4() { 0x11 } else { 0x21 };
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    let fixed = [0x21, family, length[0], length[1]];
    [b"\r\n\r\n\0\r\nQUIT\n", &fixed[..], &rest].concat()
}

/// Any but the checksum.
fn extensions() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let kind = any::<u8>().prop_filter("no checksum", |kind| *kind != 3);
    prop::collection::vec((kind, prop::collection::vec(any::<u8>(), 0..100)), 0..10)
}

proptest! {
    #[test]
    fn what_a_proxy_says_is_understood(
        client in ends(),
        extensions in extensions(),
        cuts in prop::collection::vec(1_usize..40, 0..100),
        more in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        for header in [line(&client), binary(&client, &extensions)] {
            let stream = [&header[..], &more].concat();
            let (parsed, read) = read(&stream, cuts.iter().copied());
            prop_assert_eq!(parsed.whom, Whom::Client(client));
            prop_assert_eq!((parsed.length, read), (header.len(), header.len()));
        }
    }

    /// Nothing panics, and nothing is asked for beyond the largest header.
    #[test]
    fn anything_else_is_an_error_or_waits(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for start in [&b""[..], b"PROXY TCP4 ", b"PROXY TCP6 ", b"\r\n\r\n\0\r\nQUIT\n"] {
            let stream = [start, &bytes].concat();
            if let Ok(Parsed::Needed(needed)) = parse(&stream) {
                prop_assert!(needed > stream.len() && needed <= MAX_HEADER);
            }
        }
    }
}
