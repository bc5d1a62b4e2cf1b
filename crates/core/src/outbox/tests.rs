//! Tests of the outbox: its rules one by one, and its interleavings with loom.

#[cfg(network_system_loom)]
mod loom_models;
#[cfg(not(network_system_loom))]
mod rules;
