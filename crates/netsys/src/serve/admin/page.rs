//! The dashboard: files that are inside the binary.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use super::State;

macro_rules! asset {
    ($name:literal) => {
        include_str!(concat!("../../../assets/dashboard/", $name))
    };
}

const FILES: [(&str, &str, &str); 5] = [
    ("/", "text/html; charset=utf-8", asset!("index.html")),
    (
        "/dashboard.js",
        "text/javascript; charset=utf-8",
        asset!("dashboard.js"),
    ),
    (
        "/dashboard.css",
        "text/css; charset=utf-8",
        asset!("dashboard.css"),
    ),
    (
        "/uplot.js",
        "text/javascript; charset=utf-8",
        asset!("uplot.js"),
    ),
    ("/uplot.css", "text/css; charset=utf-8", asset!("uplot.css")),
];

/// Nothing but what is ours, inside nobody else's page.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The files, beside what is there.
pub fn routes(mut router: Router<Arc<State>>) -> Router<Arc<State>> {
    for (path, kind, text) in FILES {
        let answer = move || async move {
            let headers = [
                (header::CONTENT_TYPE, kind),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::REFERRER_POLICY, "no-referrer"),
                (header::CACHE_CONTROL, "no-cache"),
            ];
            (headers, text).into_response()
        };
        router = router.route(path, get(answer));
    }
    router
}
