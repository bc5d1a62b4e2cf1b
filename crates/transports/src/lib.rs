//! network-system transports
