//! network-system core
