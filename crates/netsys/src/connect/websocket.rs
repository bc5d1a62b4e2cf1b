//! The options of `netsys connect` about WebSocket.

use clap::Args;
use network_system::config::WebSocketConfig;

/// What is sent along with the request.
#[derive(Args, Clone, Debug, Default)]
pub struct WebSocketArgs {
    /// WebSocket: a field of the request, such as "Authorization: Bearer …"
    #[arg(long, value_name = "NAME: VALUE", value_parser = field)]
    header: Vec<(String, String)>,

    /// WebSocket: offer this subprotocol; the first is the preferred one
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
}

impl WebSocketArgs {
    /// The settings with these.
    pub fn config(&self) -> WebSocketConfig {
        WebSocketConfig {
            headers: self.header.iter().cloned().collect(),
            subprotocols: self.subprotocol.clone(),
            ..WebSocketConfig::default()
        }
    }
}

fn field(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once(':') {
        Some((name, value)) if !name.is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("a field is a name, a colon and a value"),
    }
}
