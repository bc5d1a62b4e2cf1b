//! What keeps a program well when what it talks to is not: [`CircuitBreaker`].

mod breaker;

pub use breaker::{BreakerConfig, BreakerPermit, BreakerState, BreakerStatistics, CircuitBreaker};
