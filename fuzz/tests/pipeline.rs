//! Fuzz target: offers, headers and compressed sizes of a peer that wishes us ill.

use bolero::{TypeGenerator, check};
use network_system_wire::WireError;
use network_system_wire::pipeline::{Algorithm, Header, MAGIC, OFFER, Offer, packed};

/// A frame of a peer.
#[derive(Debug, TypeGenerator)]
enum Frame {
    /// Anything.
    Bytes(Vec<u8>),
    /// Anything behind what an offer begins with, or nearly so.
    Offer([u8; 4], Vec<u8>),
    /// A compressed message, with any size and limit.
    Packed(u8, u32, Vec<u8>, u32),
}

/// What parses is what would be written, and what does not is explained.
fn check_frame(bytes: &[u8]) {
    match Offer::decode(bytes) {
        Ok(offer) => {
            let again = offer.encode();
            // one byte is ignored
            assert_eq!(again[..7], bytes[..7]);
            assert_eq!(again[8..], bytes[8..OFFER]);
        }
        Err(error) => assert!(matches!(error, WireError::Invalid(_)), "{error:?}"),
    }
    for encrypted in [false, true] {
        match Header::decode(bytes, encrypted) {
            Ok((header, rest)) => {
                assert_eq!((header.encode(), rest), (bytes[0], &bytes[1..]));
                assert!(encrypted || !(header.more || header.rekey || header.goodbye));
                assert!(!header.goodbye || rest.is_empty());
            }
            Err(error) => assert!(matches!(error, WireError::Invalid(_)), "{error:?}"),
        }
    }
}

#[test]
fn pipeline() {
    check!().with_type::<Frame>().for_each(|frame| match frame {
        Frame::Bytes(bytes) => check_frame(bytes),
        Frame::Offer(change, rest) => {
            // Most bits of the change are lost, so that the magic is often right.
            let magic = MAGIC.iter().zip(change).map(|(m, c)| m ^ (c >> 7));
            let magic: Vec<u8> = magic.collect();
            check_frame(&[&magic[..], rest].concat());
        }
        Frame::Packed(algorithm, size, rest, limit) => {
            let algorithm = Algorithm::ALL[usize::from(*algorithm) % 3];
            let (size, limit) = (size >> (size % 32), *limit as usize);
            let body = [&size.to_be_bytes()[..], rest].concat();
            // what is allowed is neither above the limit nor more than so few bytes can become
            if let Ok((n, bytes)) = packed(&body, algorithm, limit) {
                assert_eq!((n, bytes), (size as usize, &rest[..]));
                assert!(n <= limit && n <= algorithm.most(bytes.len()));
            }
        }
    });
}
