//! What keeps a program well when what it talks to is not: [`CircuitBreaker`], [`Balancer`],
//! [`RetryBudget`] and [`RequestPool`], which puts them together.

mod balancer;
mod breaker;
mod budget;
mod gate;
mod lines;
mod requests;
mod statistics;

pub use balancer::{Balance, Balancer, BalancerConfig, Choice};
pub use breaker::{BreakerConfig, BreakerPermit, BreakerState, BreakerStatistics, CircuitBreaker};
pub use budget::RetryBudget;
pub use requests::{RequestPool, RequestPoolConfig, RequestPoolObserver};
pub use statistics::{AddressStatistics, RequestPoolStatistics};
