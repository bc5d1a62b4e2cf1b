//! Fuzz target: messages that end with a delimiter, from one byte to a few, overlapping with itself
//! or not.

use bolero::{check, produce};
use network_system_fuzz::{Input, check_canonical, check_codec, letter};
use network_system_wire::Delimiter;

#[test]
fn delimiter() {
    let delimiters = produce::<Vec<u8>>().with().len(0..=5_usize);
    check!()
        .with_generator((delimiters, produce::<bool>(), produce::<Input>()))
        .for_each(|(delimiter, letters, input)| {
            let byte = |byte: &u8| if *letters { letter(byte) } else { *byte };
            let delimiter: Vec<u8> = delimiter.iter().map(byte).collect();
            let Ok(codec) = Delimiter::new(delimiter.clone()) else {
                assert!(delimiter.is_empty());
                return;
            };
            let codec = input.limit(codec);
            let (stream, outcome) = check_codec(&codec, input);
            for message in &outcome.messages {
                let mut windows = message.windows(delimiter.len());
                assert!(!windows.any(|window| window == delimiter));
            }
            check_canonical(&codec, &stream, &outcome);
        });
}
