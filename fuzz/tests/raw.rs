//! Fuzz target: bytes as they come.

use bolero::check;
use network_system_fuzz::{Input, bytewise, cut, read};
use network_system_wire::{Codec, Raw};

#[test]
fn raw() {
    check!().with_type::<Input>().for_each(|input| {
        let codec = input.limit(Raw::new());
        let (stream, messages) = input.stream(&codec);
        if let Some(messages) = messages {
            assert_eq!(stream, messages.concat(), "sent as they are");
        }
        let cuts = cut(&stream, &input.sizes());
        for outcome in [
            read(&codec, [&stream[..]]),
            read(&codec, cuts),
            read(&codec, bytewise(&stream)),
        ] {
            assert_eq!(outcome.error, None);
            assert_eq!(outcome.messages.concat(), stream, "all bytes in order");
            for message in &outcome.messages {
                assert!((1..=codec.max_message()).contains(&message.len()));
            }
        }
    });
}
