//! Addresses on the command line, checked before anything starts.

use network_system::config::{LinkConfig, SessionConfig, SocketOptions};
use network_system::{Address, Error, Schemes};

/// Whether connections of this address have TLS.
pub fn is_secure(address: &Address, config: &LinkConfig) -> bool {
    config.tls || matches!(address.scheme(), "tls" | "https")
}

/// An address and the settings that hold for it, its query applied.
///
/// # Errors
/// Points at the part that is wrong.
pub fn parse(
    text: &str,
    session: &SessionConfig,
    socket: &SocketOptions,
) -> Result<(Address, LinkConfig), Error> {
    let address: Address = text.parse()?;
    if !Schemes::KNOWN.contains(&address.scheme()) {
        return Err(address.unknown_scheme(Schemes::KNOWN).into());
    }
    if matches!(address.scheme(), "tcp" | "tls" | "http" | "https") {
        address.host_and_port()?;
    }
    let config = LinkConfig {
        session: session.clone(),
        socket: socket.clone(),
        ..LinkConfig::default()
    };
    let config = config.for_address(&address)?;
    Ok((address, config))
}
