//! The page that browsers see of a server with HTTP: what it is, and how to speak with it.

use axum::Router;
use axum::response::Html;
use axum::routing::get;

use crate::config::Settings;

/// Answers `/`, and nothing else.
pub fn router(settings: &Settings) -> Router {
    let page = page(
        settings.mode.name(),
        settings.server.http.messages.as_deref(),
    );
    Router::new().route("/", get(move || async { Html(page) }))
}

fn page(mode: &str, messages: Option<&str>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let how = match messages.map(escaped) {
        Some(path) => format!(
            "<p>Send a message, and see what comes back:</p>\n\
             <pre>curl -d hello {{here}}{path}</pre>\n\
             <p>Stay connected, as a session whose messages are events:</p>\n\
             <pre>curl -N {{here}}{path}</pre>\n"
        ),
        None => {
            "<p>The message gateway is off (<code>server.http.messages</code>).</p>\n".to_owned()
        }
    };
    let how = how.replace("{here}", "http://HOST:PORT");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <title>network-system</title>\n<h1>network-system {version}</h1>\n\
         <p>This is <code>netsys serve</code> in the mode <code>{mode}</code>.</p>\n{how}</html>\n"
    )
}

/// Text as it stands in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_where_messages_go() {
        let with = page("echo", Some("/a<b>"));
        assert!(
            with.contains("curl -d hello http://HOST:PORT/a&lt;b>"),
            "{with}"
        );
        assert!(page("echo", None).contains("is off"));
    }
}
