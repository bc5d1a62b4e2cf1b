//! What an application has beside the network: its log ([`logging`]), its metrics
//! ([`monitoring`]) and its threads ([`rayon`]).
//!
//! One module for each; none knows another.

pub mod logging;
#[cfg(feature = "monitoring")]
pub mod monitoring;
#[cfg(feature = "rayon")]
pub mod rayon;
