//! Tests of the outbox, with loom and without.
