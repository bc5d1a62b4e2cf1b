//! Messages that are like what services send each other, for measurements with compression: lines of
//! JSON with numbers, identifiers and words that do not repeat at equal distances.

use std::fmt::Write;

/// What values are made of.
const WORDS: &[&str] = &[
    "order",
    "customer",
    "payment",
    "was",
    "accepted",
    "and",
    "the",
    "invoice",
    "waits",
    "for",
    "stock",
    "in",
    "warehouse",
    "delivery",
    "to",
    "address",
    "changed",
    "by",
    "agent",
    "after",
    "call",
    "refund",
    "pending",
    "because",
    "card",
    "expired",
    "retry",
    "scheduled",
    "cart",
    "session",
    "closed",
    "without",
    "purchase",
    "review",
    "of",
    "item",
    "published",
    "price",
    "updated",
    "from",
    "supplier",
    "list",
    "carrier",
    "reported",
    "delay",
    "parcel",
    "returned",
];
const SERVICES: &[&str] = &["billing", "orders", "stock", "mail", "search", "accounts"];
const LEVELS: &[&str] = &["info", "info", "info", "debug", "warn", "error"];
const CITIES: &[&str] = &[
    "Lisbon", "Oslo", "Nairobi", "Lima", "Hanoi", "Quito", "Turin",
];

/// The first `size` bytes of it: always the same.
pub fn json(size: usize) -> Vec<u8> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut text = String::with_capacity(size + 512);
    let mut millis = 0;
    while text.len() < size {
        millis += random.below(900);
        line(&mut text, millis, &mut random);
    }
    text.truncate(size);
    text.into_bytes()
}

fn line(text: &mut String, millis: u64, random: &mut Random) {
    let (second, ms) = (millis / 1000, millis % 1000);
    let (minute, second) = (second / 60 % 60, second % 60);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "{{\"time\":\"2026-03-14T09:{minute:02}:{second:02}.{ms:03}Z\",\"level\":\"{}\",\
         \"service\":\"{}\",\"request\":\"{:016x}\",\"user\":{},\"city\":\"{}\",\
         \"total\":{}.{:02},\"took_ms\":{},\"note\":\"",
        random.of(LEVELS),
        random.of(SERVICES),
        random.next(),
        random.below(1_000_000),
        random.of(CITIES),
        random.below(500),
        random.below(100),
        random.below(2000),
    );
    for n in 0..4 + random.below(9) {
        let space = if n == 0 { "" } else { " " };
        let _ = write!(text, "{space}{}", random.of(WORDS));
    }
    text.push_str("\"}\n");
}

/// Numbers that look like any (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        // the higher bits are the better ones
        (self.next() >> 32) % end
    }

    fn of(&mut self, all: &[&'static str]) -> &'static str {
        let n = self.below(all.len() as u64) as usize;
        all.get(n).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_json_of_any_length_and_always_the_same() {
        let text = String::from_utf8(json(10_000)).unwrap();
        assert_eq!(text.len(), 10_000);
        let mut lines: Vec<&str> = text.lines().collect();
        lines.pop();
        assert!(lines.len() > 30);
        for line in &lines {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(value["user"].is_u64(), "{value}");
        }
        lines.sort_unstable();
        lines.dedup();
        assert!(lines.len() > 30, "no line comes twice");
        assert_eq!(json(10_000), text.as_bytes());
        assert_eq!(json(100), &text.as_bytes()[..100]);
    }
}
