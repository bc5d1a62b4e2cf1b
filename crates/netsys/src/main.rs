//! The netsys command line.
fn main() {}
