//! A client's part in the handshake, on hyper.

use std::sync::Arc;

use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use network_system_core::config::{ENVELOPE_SUBPROTOCOL, LinkConfig};
use network_system_core::{Address, Error, ErrorKind, HttpInfo, LinkInfo, Result};
use sockudo_ws::deflate::DeflateConfig;
use sockudo_ws::handshake::{generate_key, validate_accept_key};
use sockudo_ws::protocol::Role;

use super::carrier::Carrier;
use super::deflate;
use super::link::WebSocketLink;
use super::server::has_token;

fn failed(address: &Address, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Handshake, "do the WebSocket handshake with")
        .peer(address)
        .because(why)
}

/// Asks the server at `address`, over a stream to it.
pub(super) async fn connect(
    io: Carrier,
    mut info: LinkInfo,
    address: &Address,
    config: &LinkConfig,
) -> Result<WebSocketLink<Carrier>> {
    let key = generate_key();
    let request = request(address, config, &key)?;
    let (path, query) = (
        request.uri().path().to_owned(),
        request.uri().query().map(str::to_owned),
    );
    let settings = &config.websocket;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(settings.max_header_bytes)
        .max_headers(settings.max_headers)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| failed(address, &error).caused_by(error))?;
    let asked = async {
        let response = sender.send_request(request).await;
        let mut response = response.map_err(|error| failed(address, &error).caused_by(error))?;
        let (known, deflate) =
            check(&response, &key, config).map_err(|why| failed(address, why))?;
        let upgraded = hyper::upgrade::on(&mut response).await;
        let upgraded = upgraded.map_err(|error| failed(address, &error).caused_by(error))?;
        Ok::<_, Error>((known, deflate, upgraded))
    };
    let mut asked = std::pin::pin!(asked);
    let connection = connection.with_upgrades();
    let (mut known, deflate, upgraded) = tokio::select! {
        biased;
        asked = &mut asked => asked?,
        // it has been handed over, or has failed, of which the request knows
        _ = connection => asked.await?,
    };
    (known.path, known.query) = (path, query);
    info.http = Some(Arc::new(known));
    let (io, first) = super::inner(upgraded)?;
    Ok(WebSocketLink::new(io, Role::Client, info, deflate, &first))
}

/// The request.
fn request(address: &Address, config: &LinkConfig, key: &str) -> Result<Request<String>> {
    let path = match address.path() {
        // that of a Unix socket is a file
        _ if address.scheme() == "unix" => "/",
        "" => "/",
        path => path,
    };
    let query = LinkConfig::foreign_query(address);
    let target = match query.as_str() {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    };
    let host = match (address.host(), address.port()) {
        ("", _) => "localhost".to_owned(),
        (host, Some(port)) if host.contains(':') => format!("[{host}]:{port}"),
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    let settings = &config.websocket;
    let names = match config.session.envelope {
        true => ENVELOPE_SUBPROTOCOL.to_owned(),
        false => settings.subprotocols.join(", "),
    };
    let offer = settings.deflate.as_ref().map(deflate::offer);
    let mut request = Request::get(target)
        .header(HOST, host)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header(SEC_WEBSOCKET_KEY, key)
        .header(SEC_WEBSOCKET_VERSION, "13");
    if !names.is_empty() {
        request = request.header(SEC_WEBSOCKET_PROTOCOL, names);
    }
    if let Some(offer) = offer {
        request = request.header(SEC_WEBSOCKET_EXTENSIONS, offer);
    }
    let request = request.body(String::new());
    let unsendable = |error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::InvalidArgument, "ask for a WebSocket at")
            .peer(address)
            .because(error)
    };
    let mut request = request.map_err(|error| unsendable(&error))?;
    for (name, value) in &settings.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| unsendable(&error))?;
        let mut value = HeaderValue::from_str(value).map_err(|error| unsendable(&error))?;
        value.set_sensitive(true);
        // in place of ours, where it is one of ours
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// What an answer says, if it is a good one.
fn check(
    response: &Response<Incoming>,
    key: &str,
    config: &LinkConfig,
) -> Result<(HttpInfo, Option<DeflateConfig>), String> {
    let headers = response.headers();
    let text = |name: HeaderName| one(headers, name);
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let to = headers
            .get(http::header::LOCATION)
            .and_then(|to| to.to_str().ok());
        let to = to.map(|to| format!(" to {to}")).unwrap_or_default();
        return Err(format!("the server has answered {}{to}", response.status()));
    }
    if !has_token(headers, UPGRADE, "websocket") || !has_token(headers, CONNECTION, "upgrade") {
        return Err("the server has agreed to something else than WebSocket".to_owned());
    }
    let accept = text(SEC_WEBSOCKET_ACCEPT)?.unwrap_or_default();
    if !validate_accept_key(key, accept) {
        return Err("the server has not read our key".to_owned());
    }
    let subprotocol = text(SEC_WEBSOCKET_PROTOCOL)?.map(str::to_owned);
    let settings = &config.websocket;
    match &subprotocol {
        Some(name) if config.session.envelope && name == ENVELOPE_SUBPROTOCOL => {}
        None if config.session.envelope => {
            return Err(format!(
                "the server does not speak the subprotocol {ENVELOPE_SUBPROTOCOL}"
            ));
        }
        Some(name) if config.session.envelope || !settings.subprotocols.contains(name) => {
            return Err(format!("the subprotocol '{name}' was not offered"));
        }
        _ => {}
    }
    let extensions = text(SEC_WEBSOCKET_EXTENSIONS)?.map(str::to_owned);
    let deflate = extensions.as_deref();
    let deflate = deflate.map(|answer| deflate::accept(answer, settings.deflate.as_ref()));
    let deflate = deflate.transpose()?;
    let mut known = HttpInfo::default();
    known.headers = super::fields(headers);
    known.subprotocol = subprotocol;
    known.extensions = extensions;
    Ok((known, deflate))
}

/// The field of this name, of which there must not be two.
fn one(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, String> {
    let mut values = headers.get_all(&name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(format!("the server has answered with two fields {name}"));
    }
    let value = value.map(|value| value.to_str()).transpose();
    value.map_err(|_| format!("the server's field {name} cannot be read"))
}
