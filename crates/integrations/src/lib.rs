//! What an application has beside the network: its log ([`logging`]) and its threads ([`rayon`]).
//!
//! One module for each; none knows another.

pub mod logging;
#[cfg(feature = "rayon")]
pub mod rayon;
