//! Who may ask: the token, and what a browser must not be talked into.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use network_system::Address;
use subtle::ConstantTimeEq as _;

use crate::config::AdminSettings;
use crate::failure::{Failure, Result};

/// The rule of one listener.
pub struct Access {
    token: Option<String>,
    /// Only this machine reaches it: who only looks needs no token.
    local: bool,
}

/// Shorter tokens can be guessed.
const SHORTEST: usize = 16;

impl Access {
    /// # Errors
    /// Others can reach the address, and there is no token; or it is too short.
    pub fn new(settings: &AdminSettings) -> Result<Self> {
        let url = settings.url().unwrap_or_default();
        let address: Address = url.parse().map_err(Failure::usage)?;
        let local = super::is_loopback(&address);
        let token = settings.token()?;
        match &token {
            Some(token) if token.len() < SHORTEST => Err(Failure::usage(format_args!(
                "the admin token is too short; allowed: {SHORTEST} characters or more"
            ))),
            None if !local => Err(Failure::usage(format_args!(
                "others can reach {url}, so it needs a token; put one into a file for \
                 admin.token_file (--admin-token-file), or listen on 127.0.0.1"
            ))),
            _ => Ok(Self { token, local }),
        }
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).map(|v| v.as_bytes());
        let given = given.and_then(|v| v.split_at_checked(7));
        match (&self.token, given) {
            // as long for a wrong token as for a right one
            (Some(token), Some((scheme, given))) => {
                scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(token.as_bytes().ct_eq(given))
            }
            _ => false,
        }
    }

    /// Whether a page of another site may be behind the request: a name that its owner points at this
    /// machine.
    fn is_rebound(&self, request: &Request) -> bool {
        let host = request.headers().get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok()).map(str::to_owned);
        let host = host.or_else(|| request.uri().authority().map(ToString::to_string));
        let ours = host.is_some_and(|host| {
            let url = format!("http://{host}");
            let at: std::result::Result<Address, _> = match url.rsplit_once(':') {
                Some((_, port)) if port.parse::<u16>().is_ok() => url.parse(),
                _ => format!("{url}:80").parse(),
            };
            at.is_ok_and(|at| super::is_loopback(&at))
        });
        self.local && !ours
    }
}

/// Lets those through who may ask.
pub async fn check(
    State(state): State<Arc<super::State>>,
    request: Request,
    next: Next,
) -> Response {
    let access = &state.access;
    if access.has_token(request.headers()) {
        return next.run(request).await;
    }
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    if access.local && looks && !access.is_rebound(&request) {
        return next.run(request).await;
    }
    let why = if access.token.is_none() {
        "there is no token: changes are off, and only this machine may look\n"
    } else {
        "this needs the admin token: Authorization: Bearer TOKEN\n"
    };
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, why).into_response()
}
