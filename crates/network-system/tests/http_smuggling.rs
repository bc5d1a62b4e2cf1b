//! Requests of HTTP/1.1 whose end two readers may see in different places (request smuggling), and
//! others that are no HTTP: each gets the right answer or a clean close, never a hang, and what is
//! hidden in one is never answered.
#![cfg(all(feature = "http", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{any, get};
use common::http::{Bystander, dial};
use common::{eventually, within};
use network_system::config::HttpConfig;
use network_system::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A second request, hidden in what the first may or may not have as its body.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";

/// What must come back.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// One of these, and the end of the connection.
    Refused(&'static [u16]),
    /// 200, with this body.
    Body(&'static str),
    /// 200 or 400: the standard lets a server choose. Nothing hidden is answered.
    Either,
}
use Expected::{Body, Either, Refused};

const BAD: Expected = Refused(&[400]);

fn cases() -> Vec<(&'static str, String, Expected)> {
    let post =
        |fields: &str, rest: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n{rest}");
    let chunked = "Transfer-Encoding: chunked\r\n";
    let hidden = |prefix: &str| format!("{prefix}{HIDDEN}");
    let length = HIDDEN.len();
    let both = format!("Content-Length: {}\r\n{chunked}", length + 5);
    let reverse = format!("{chunked}Content-Length: {}\r\n", length + 5);
    let with = |te: &str| format!("Transfer-Encoding: {te}\r\nContent-Length: 5\r\n");
    vec![
        // the end of the body: one of two, or neither (RFC 9112, section 6.3)
        ("CL.TE", post(&both, &hidden("0\r\n\r\n")), Either),
        ("TE.CL", post(&reverse, &hidden("0\r\n\r\n")), Either),
        (
            "CL.CL, two values",
            post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
            BAD,
        ),
        (
            "CL.CL, one value twice",
            post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
            Either,
        ),
        (
            "CL with a list",
            post("Content-Length: 5, 6\r\n", "hello"),
            BAD,
        ),
        (
            "CL with the same list",
            post("Content-Length: 5, 5\r\n", "hello"),
            Either,
        ),
        (
            "CL with a plus",
            post("Content-Length: +5\r\n", "hello"),
            BAD,
        ),
        (
            "CL with a minus",
            post("Content-Length: -5\r\n", "hello"),
            BAD,
        ),
        (
            "CL in hexadecimal",
            post("Content-Length: 0x5\r\n", "hello"),
            BAD,
        ),
        (
            "CL with a dot",
            post("Content-Length: 5.0\r\n", "hello"),
            BAD,
        ),
        (
            "CL without a value",
            post("Content-Length: \r\n", "hello"),
            BAD,
        ),
        (
            "CL that overflows",
            post("Content-Length: 18446744073709551621\r\n", "hello"),
            BAD,
        ),
        (
            "CL with letters",
            post("Content-Length: 5a\r\n", "hello"),
            BAD,
        ),
        (
            "CL with a space inside",
            post("Content-Length: 1 0\r\n", "hello"),
            BAD,
        ),
        (
            "CL in another charset",
            post("Content-Length: \u{0665}\r\n", "hello"),
            BAD,
        ),
        ("TE identity", post(&with("identity"), "hello"), BAD),
        (
            "TE chunked, identity",
            post(&with("chunked, identity"), "hello"),
            BAD,
        ),
        (
            "TE identity, chunked",
            post(&with("identity, chunked"), "0\r\n\r\n"),
            Either,
        ),
        ("TE xchunked", post(&with("xchunked"), "0\r\n\r\n"), BAD),
        ("TE chunkedx", post(&with("chunkedx"), "0\r\n\r\n"), BAD),
        ("TE in quotes", post(&with("\"chunked\""), "0\r\n\r\n"), BAD),
        (
            "TE with a tab",
            post(&with("\tchunked"), "0\r\n\r\n"),
            Either,
        ),
        (
            "TE in capitals",
            post("Transfer-Encoding: CHUNKED\r\n", "2\r\nok\r\n0\r\n\r\n"),
            Body("ok"),
        ),
        (
            "TE twice",
            post(&format!("{chunked}{chunked}"), "0\r\n\r\n"),
            Either,
        ),
        (
            "TE with a vertical tab",
            post(&with("\u{b}chunked"), "0\r\n\r\n"),
            BAD,
        ),
        (
            "TE with a space before the colon",
            post(
                "Transfer-Encoding : chunked\r\nContent-Length: 5\r\n",
                "hello",
            ),
            BAD,
        ),
        (
            "CL with a space before the colon",
            post("Content-Length : 5\r\n", "hello"),
            BAD,
        ),
        (
            "TE in HTTP/1.0",
            format!(
                "POST / HTTP/1.0\r\nHost: x\r\n{chunked}Content-Length: 5\r\n\r\n0\r\n\r\n{HIDDEN}"
            ),
            Either,
        ),
        // fields (RFC 9112, section 5)
        (
            "obs-fold",
            post("X: a\r\n b\r\nContent-Length: 2\r\n", "ok"),
            BAD,
        ),
        (
            "obs-fold in TE",
            post(
                "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n",
                "0\r\n\r\n",
            ),
            BAD,
        ),
        (
            "a fold in the first field",
            "GET / HTTP/1.1\r\n Host: x\r\n\r\n".to_owned(),
            BAD,
        ),
        ("no colon", post("Transfer-Encoding\r\n", ""), BAD),
        ("an empty name", post(": x\r\n", ""), BAD),
        ("a NUL in a value", post("X: a\0b\r\n", ""), BAD),
        ("a CR in a value", post("X: a\rb\r\n", ""), BAD),
        ("a NUL in a name", post("X\0: a\r\n", ""), BAD),
        ("a parenthesis in a name", post("X(: a\r\n", ""), BAD),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned(), BAD),
        (
            "two hosts",
            "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".to_owned(),
            BAD,
        ),
        // lines (RFC 9112, section 2.2): a bare LF may be taken for an end, a bare CR may not
        ("bare LF", "GET / HTTP/1.1\nHost: x\n\n".to_owned(), Either),
        (
            "bare CR",
            "GET / HTTP/1.1\rHost: x\r\r".to_owned() + "\r\n\r\n",
            BAD,
        ),
        (
            "bare LF before the body",
            format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\nok{HIDDEN}"),
            Either,
        ),
        (
            "empty lines first",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            Body(""),
        ),
        // the request line (RFC 9112, section 3)
        ("no version", "GET /\r\n\r\n".to_owned(), BAD),
        (
            "HTTP/0.9",
            "GET / HTTP/0.9\r\nHost: x\r\n\r\n".to_owned(),
            Refused(&[400, 505]),
        ),
        (
            "HTTP/1.2",
            "GET / HTTP/1.2\r\nHost: x\r\n\r\n".to_owned(),
            Refused(&[200, 400, 505]),
        ),
        (
            "HTTP/2.0",
            "GET / HTTP/2.0\r\nHost: x\r\n\r\n".to_owned(),
            Refused(&[400, 505]),
        ),
        (
            "HTTP/11",
            "GET / HTTP/11\r\nHost: x\r\n\r\n".to_owned(),
            BAD,
        ),
        (
            "a space in the target",
            "GET / x HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            BAD,
        ),
        (
            "a NUL in the target",
            "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            BAD,
        ),
        (
            "two spaces",
            "GET  / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            Either,
        ),
        (
            "a space before the method",
            " GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            BAD,
        ),
        (
            "a comma in the method",
            "G(T / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            BAD,
        ),
        (
            "TLS",
            "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03".to_owned() + "\r\n\r\n",
            BAD,
        ),
        // chunks (RFC 9112, section 7.1)
        (
            "chunks",
            post(chunked, "1\r\no\r\n1\r\nk\r\n0\r\n\r\n"),
            Body("ok"),
        ),
        (
            "a chunk extension",
            post(chunked, "2;a=b\r\nok\r\n0\r\n\r\n"),
            Body("ok"),
        ),
        (
            "trailers",
            post(chunked, "2\r\nok\r\n0\r\nX: y\r\n\r\n"),
            Body("ok"),
        ),
        (
            "leading zeros",
            post(chunked, "0002\r\nok\r\n0\r\n\r\n"),
            Body("ok"),
        ),
        (
            "a size that is no number",
            post(chunked, "g\r\nok\r\n0\r\n\r\n"),
            BAD,
        ),
        (
            "a size with a sign",
            post(chunked, "+2\r\nok\r\n0\r\n\r\n"),
            BAD,
        ),
        (
            "a negative size",
            post(chunked, "-2\r\nok\r\n0\r\n\r\n"),
            BAD,
        ),
        (
            "a size with 0x",
            post(chunked, "0x2\r\nok\r\n0\r\n\r\n"),
            BAD,
        ),
        (
            "a size that overflows",
            post(chunked, "10000000000000002\r\nok\r\n0\r\n\r\n"),
            BAD,
        ),
        (
            "a size without digits",
            post(chunked, "\r\nok\r\n0\r\n\r\n"),
            BAD,
        ),
        (
            "no CRLF behind a chunk",
            post(chunked, "2\r\nok0\r\n\r\n"),
            BAD,
        ),
        (
            "a chunk that is longer than it says",
            post(chunked, "1\r\nok\r\n0\r\n\r\n"),
            BAD,
        ),
        (
            "a bare LF behind a size",
            post(chunked, &hidden("2\nok\r\n0\r\n\r\n")),
            Either,
        ),
        (
            "a bare LF in an extension",
            post(chunked, &hidden("2;\nxx\r\n0\r\n\r\n")),
            Refused(&[200, 400]),
        ),
        (
            "a bare CR behind a size",
            post(chunked, "2\rok\r\n0\r\n\r\n"),
            BAD,
        ),
        (
            "endless extensions",
            post(
                chunked,
                &format!("2;{}\r\nok\r\n0\r\n\r\n", "x".repeat(100_000)),
            ),
            BAD,
        ),
        (
            "endless trailers",
            post(
                chunked,
                &format!("2\r\nok\r\n0\r\nX: {}\r\n\r\n", "x".repeat(100_000)),
            ),
            BAD,
        ),
        (
            "many trailers",
            post(
                chunked,
                &format!("2\r\nok\r\n0\r\n{}\r\n", "X: y\r\n".repeat(5000)),
            ),
            BAD,
        ),
        (
            "a huge size",
            post(chunked, "fffffffffff\r\nok"),
            Refused(&[400, 408, 413]),
        ),
        (
            "a huge length",
            post("Content-Length: 99999999999\r\n", "ok"),
            Refused(&[413]),
        ),
        // what is behind a request is another one, and not a part of its body
        (
            "pipelined",
            format!(
                "GET / HTTP/1.1\r\nHost: x\r\n\r\n{}",
                HIDDEN.replace("/hidden", "/")
            ),
            Body(""),
        ),
    ]
}

/// The statuses and the last body of what has come.
fn parse(back: &str) -> (Vec<u16>, String) {
    let heads: Vec<_> = back.match_indices("HTTP/1.1 ").collect();
    let statuses = heads
        .iter()
        .filter_map(|(at, _)| back.get(at + 9..at + 12)?.parse().ok());
    let body = back.rsplit_once("\r\n\r\n").map_or("", |(_, body)| body);
    (statuses.collect(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled() {
    let hidden = Arc::new(AtomicUsize::new(0));
    let count = hidden.clone();
    let router = Router::new()
        .route("/", any(|body: Bytes| async { body }))
        .route("/healthy", get(|| async { "healthy" }))
        .route(
            "/hidden",
            any(move || async move { count.fetch_add(1, Relaxed).to_string() }),
        );
    let config = HttpConfig {
        header_timeout: Duration::from_secs(2),
        body_timeout: Duration::from_secs(1),
        keep_alive: Duration::from_secs(1),
        ..HttpConfig::default()
    };
    let server = Server::builder()
        .listen("http://127.0.0.1:0")
        .http_config(config)
        .http(router)
        .start()
        .await
        .unwrap();
    let bystander = Bystander::start(&server, "/healthy").await;
    let mut wrong = Vec::new();
    for (name, request, expected) in cases() {
        let mut stream = dial(&server).await;
        let _ = within(stream.write_all(request.as_bytes())).await;
        let mut back = Vec::new();
        // a reset is a close, too: there may be bytes that nobody reads
        let _ = within(stream.read_to_end(&mut back)).await;
        let back = String::from_utf8_lossy(&back);
        let (statuses, body) = parse(&back);
        let (first, last) = (statuses.first().copied(), statuses.last().copied());
        let is_right = match expected {
            Refused(any) => first == last && first.is_none_or(|first| any.contains(&first)),
            Body(text) => first == Some(200) && body == text,
            Either => statuses.iter().all(|status| [200, 400].contains(status)),
        };
        if !is_right {
            wrong.push(format!("{name}: {expected:?}, not {back:?}"));
        }
        let seen = hidden.swap(0, Relaxed);
        // only there is its end the same for everybody
        if seen > 0 && name != "bare LF before the body" {
            wrong.push(format!("{name}: what was hidden is answered: {back:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases().len(),
        wrong.join("\n")
    );
    eventually("all are gone", || {
        server.statistics().connections_active == 1
    })
    .await;
    bystander.finish().await;
}
