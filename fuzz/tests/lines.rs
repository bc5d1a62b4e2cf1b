//! Fuzz target: one message per line.

use bolero::check;
use network_system_fuzz::{Input, check_canonical, check_codec};
use network_system_wire::Lines;

#[test]
fn lines() {
    check!().with_type::<Input>().for_each(|input| {
        let codec = input.limit(Lines::new());
        let (stream, outcome) = check_codec(&codec, input);
        for message in &outcome.messages {
            assert!(!message.contains(&b'\n'));
        }
        // A CR in front of the LF is dropped, so there are two ways to spell a line.
        if !stream.contains(&b'\r') {
            check_canonical(&codec, &stream, &outcome);
        }
    });
}
