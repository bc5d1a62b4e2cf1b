//! Fuzz target: messages behind a length of any width and byte order.

use bolero::{TypeGenerator, check};
use network_system_fuzz::{Input, check_canonical, check_codec};
use network_system_wire::{ByteOrder, LengthPrefix, Width};

#[derive(Debug, TypeGenerator)]
enum Layout {
    U8,
    U16,
    U32,
    U64,
    Varint,
}

#[test]
fn length_prefix() {
    check!()
        .with_type::<(Layout, bool, Input)>()
        .for_each(|(layout, little, input)| {
            let width = match layout {
                Layout::U8 => Width::U8,
                Layout::U16 => Width::U16,
                Layout::U32 => Width::U32,
                Layout::U64 => Width::U64,
                Layout::Varint => Width::Varint,
            };
            let order = if *little {
                ByteOrder::Little
            } else {
                ByteOrder::Big
            };
            let codec = LengthPrefix::new().with_width(width).with_order(order);
            let codec = input.limit(codec);
            let (stream, outcome) = check_codec(&codec, input);
            check_canonical(&codec, &stream, &outcome);
        });
}
