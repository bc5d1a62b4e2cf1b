//! network-system wire
