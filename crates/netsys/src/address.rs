//! Addresses on the command line, checked before anything starts.

use network_system::config::{LinkConfig, SessionConfig, SocketOptions};
use network_system::{Address, Error, Schemes};

/// An address to listen on and the settings that hold for it, its query applied.
///
/// # Errors
/// Points at the part that is wrong.
pub fn parse(
    text: &str,
    session: &SessionConfig,
    socket: &SocketOptions,
) -> Result<(Address, LinkConfig), Error> {
    let (address, config) = known(text, session, socket)?;
    if matches!(address.scheme(), "tcp" | "tls" | "ws" | "wss") {
        address.host_and_port()?;
    }
    let config = config.for_address(&address)?;
    Ok((address, config))
}

/// As [`parse`], of an address to connect to.
///
/// # Errors
/// As there.
pub fn parse_to_connect(
    text: &str,
    session: &SessionConfig,
    socket: &SocketOptions,
) -> Result<(Address, LinkConfig), Error> {
    let (address, config) = known(text, session, socket)?;
    // WebSocket has usual ports
    if matches!(address.scheme(), "tcp" | "tls") {
        address.host_and_port()?;
    }
    let config = config.for_connect(&address)?;
    Ok((address, config))
}

fn known(
    text: &str,
    session: &SessionConfig,
    socket: &SocketOptions,
) -> Result<(Address, LinkConfig), Error> {
    let address: Address = text.parse()?;
    if !Schemes::KNOWN.contains(&address.scheme()) {
        return Err(address.unknown_scheme(Schemes::KNOWN).into());
    }
    let config = LinkConfig {
        session: session.clone(),
        socket: socket.clone(),
        ..LinkConfig::default()
    };
    Ok((address, config))
}
