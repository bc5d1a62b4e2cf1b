//! network-system
