//! The admin listener of `netsys serve`: what it tells, whom it obeys, and what its document says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use common::{LIMIT, Server, frame, netsys, read_frame};
use serde_json::Value;

const TOKEN: &str = "0123456789abcdef-secret";

/// A server with an admin listener.
struct Watched {
    server: Server,
    admin: String,
    _token: tempfile::NamedTempFile,
}

impl Watched {
    fn start(more: &[&str]) -> Self {
        let mut token = tempfile::NamedTempFile::new().unwrap();
        writeln!(token, "{TOKEN}").unwrap();
        let file = token.path().to_str().unwrap().to_owned();
        let mut arguments = vec!["--listen", "tcp://127.0.0.1:0"];
        if !more.contains(&"--admin") {
            arguments.extend(["--admin", "127.0.0.1:0"]);
        }
        arguments.extend(["--admin-token-file", &file]);
        arguments.extend(more);
        let mut server = Server::start_with(&arguments);
        let event = server.event(|event| event["event"] == "admin");
        let admin = event["address"].as_str().unwrap().to_owned();
        Self {
            server,
            admin,
            _token: token,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.admin.trim_end_matches('/'))
    }

    fn get(&self, path: &str) -> (u16, String) {
        ask(ureq::get(self.url(path)))
    }

    fn json(&self, path: &str) -> Value {
        let (status, text) = self.get(path);
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Asks until it is so.
    fn until(&self, path: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let value = self.json(path);
            if wanted(&value) {
                return value;
            }
            assert!(began.elapsed() < LIMIT, "{path}: {value}");
        }
    }

    /// A connection with so many messages echoed.
    fn peer(&self, messages: usize) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.server.port())).unwrap();
        for _ in 0..messages {
            stream.write_all(&frame(b"hello")).unwrap();
            assert_eq!(read_frame(&mut stream), b"hello");
        }
        stream
    }

    /// What is answered to these bytes, with the connection closed after.
    fn raw(&self, request: &str) -> String {
        let port = self.admin.trim_end_matches('/').rsplit(':').next().unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn ask<B>(request: ureq::RequestBuilder<B>) -> (u16, String)
where
    ureq::RequestBuilder<B>: Call,
{
    request.answer()
}

trait Call {
    fn answer(self) -> (u16, String);
}

impl Call for ureq::RequestBuilder<ureq::typestate::WithoutBody> {
    fn answer(self) -> (u16, String) {
        let request = self.config().http_status_as_error(false).build();
        let mut answer = request.call().unwrap();
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_to_string().unwrap())
    }
}

#[test]
fn the_numbers_are_those_of_the_traffic() {
    let watched = Watched::start(&[]);
    let first = watched.peer(10);
    let _second = watched.peer(5);
    let s = watched.until("/api/statistics", |s| s["messages_out"] == 15);
    assert_eq!(
        (&s["messages_in"], &s["bytes_in"]),
        (&15.into(), &(15 * 9).into())
    );
    assert_eq!(s["transports"]["tcp"]["connections_active"], 2);
    assert_eq!(s["ready"], true);
    let page = watched.get("/metrics").1;
    assert!(
        page.contains("network_system_messages_received_total{server=\"netsys\"} 15\n"),
        "{page}"
    );
    assert!(page.contains("process_resident_memory_bytes "), "{page}");
    let table = watched.json("/api/sessions?sort=messages_in&order=desc");
    assert_eq!(table["total"], 2);
    assert_eq!(table["sessions"][0]["messages_in"], 10);
    let peer = first.local_addr().unwrap().to_string();
    let found = watched.json(&format!("/api/sessions?search={peer}"));
    assert_eq!(
        (&found["total"], &found["sessions"][0]["messages_in"]),
        (&1.into(), &10.into())
    );
    let page = watched.json("/api/sessions?per_page=1&page=1&sort=messages_in");
    assert_eq!(
        (&page["total"], &page["sessions"][0]["messages_in"]),
        (&2.into(), &5.into())
    );
    for wrong in ["?sort=colour", "?page=-1", "?nonsense=1"] {
        assert_eq!(watched.get(&format!("/api/sessions{wrong}")).0, 400);
    }
    watched.until("/api/history", |h| {
        h.as_array()
            .unwrap()
            .iter()
            .any(|s| s["connections_active"] == 2)
    });
}

#[test]
fn only_who_has_the_token_changes_anything() {
    let watched = Watched::start(&[]);
    let mut peer = watched.peer(1);
    let id = watched.json("/api/sessions")["sessions"][0]["id"].clone();
    let path = watched.url(&format!("/api/sessions/{id}"));
    assert_eq!(ask(ureq::delete(&path)).0, 401);
    for wrong in [
        "Bearer ",
        "Bearer x",
        &format!("Bearer {TOKEN}x"),
        &format!("Basic {TOKEN}"),
        "",
    ] {
        assert_eq!(
            ask(ureq::delete(&path).header("Authorization", wrong)).0,
            401,
            "{wrong}"
        );
    }
    peer.write_all(&frame(b"still")).unwrap();
    assert_eq!(read_frame(&mut peer), b"still");
    let token = format!("Bearer {TOKEN}");
    assert_eq!(
        ask(ureq::delete(&path).header("Authorization", &token)).0,
        204
    );
    assert!(
        matches!(peer.read(&mut [0]), Ok(0) | Err(_)),
        "it is closed"
    );
    watched.until("/api/statistics", |s| s["connections_active"] == 0);
    assert_eq!(
        ask(ureq::delete(&path).header("Authorization", &token)).0,
        404
    );
}

#[test]
fn others_need_the_token_and_a_listener_for_them_must_have_one() {
    for listen in ["0.0.0.0:0", "[::]:0", "http://192.0.2.1:9090"] {
        let output = netsys()
            .args(["serve", "--listen", "tcp://127.0.0.1:0", "--admin", listen])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains("needs a token"),
            "{said}"
        );
    }
    let watched = Watched::start(&["--admin", "0.0.0.0:0"]);
    let at = |path: &str| watched.url(path).replace("0.0.0.0", "127.0.0.1");
    for path in [
        "/metrics",
        "/api/statistics",
        "/api/sessions",
        "/api/history",
        "/api/events",
    ] {
        assert_eq!(ask(ureq::get(at(path))).0, 401, "{path}");
    }
    let token = format!("Bearer {TOKEN}");
    assert_eq!(
        ask(ureq::get(at("/api/statistics")).header("Authorization", &token)).0,
        200
    );
    // orchestrators have none
    assert_eq!(ask(ureq::get(at("/health/ready"))).0, 200);
}

#[test]
fn hostile_requests_get_nothing_and_harm_nobody() {
    let watched = Watched::start(&[]);
    // a page of another site, whose name was pointed at this machine
    let rebound = watched
        .raw("GET /api/sessions HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert!(rebound.starts_with("HTTP/1.1 401"), "{rebound}");
    for (request, wanted) in [
        (
            "GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            "404",
        ),
        (
            "GET /api/sessions/%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            "4",
        ),
        (
            "DELETE /api/sessions/99999999999999999999999 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            "401",
        ),
        (
            "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "4",
        ),
        ("\u{1}\u{2}\r\n\r\n", "400"),
    ] {
        let answer = watched.raw(request);
        let status = answer.strip_prefix("HTTP/1.1 ").unwrap_or(&answer);
        assert!(status.starts_with(wanted), "{request}: {answer}");
    }
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a".repeat(1 << 20)
    );
    let _ = watched.raw(&long);
    assert_eq!(watched.get("/health/live"), (200, "live\n".to_owned()));
    // and from the public side there is no way to it
    let public = TcpStream::connect(("127.0.0.1", watched.server.port()));
    let mut public = public.unwrap();
    let _ = public.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut answer = Vec::new();
    let _ = public.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1"));
}

#[test]
fn events_come_live_and_slow_readers_have_a_limit() {
    let watched = Watched::start(&[]);
    let open = || ureq::get(watched.url("/api/events")).call();
    let mut lines = BufReader::new(open().unwrap().into_body().into_reader()).lines();
    let mut samples = lines.by_ref().map_while(Result::ok);
    let mut next = || samples.find(|line| line.starts_with("data:")).unwrap();
    let (first, second) = (next(), next());
    let time = |line: &str| {
        serde_json::from_str::<Value>(&line[5..]).unwrap()["time"]
            .as_f64()
            .unwrap()
    };
    assert!(time(&second) > time(&first));
    // readers that read nothing: each costs the newest sample, and there are so many at most
    let idle: Vec<_> = (0..63).map(|_| open().unwrap()).collect();
    let refused = ask(ureq::get(watched.url("/api/events")));
    assert_eq!(refused.0, 503, "{}", refused.1);
    drop(idle);
    assert_eq!(watched.get("/api/statistics").0, 200);
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let watched = Watched::start(&[]);
    let mut page = String::new();
    for path in [
        "/",
        "/dashboard.js",
        "/dashboard.css",
        "/uplot.js",
        "/uplot.css",
    ] {
        let (status, text) = watched.get(path);
        assert_eq!(status, 200, "{path}");
        page += &text;
    }
    for outside in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

/// Every path of the document answers as it says, with the properties that it names and no others.
#[test]
fn the_api_is_as_its_document_says() {
    let document: Value = serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
    let watched = Watched::start(&[]);
    let _peer = watched.peer(1);
    watched.until("/api/history", |h| !h.as_array().unwrap().is_empty());
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap();
            if method == "delete" {
                assert_eq!(
                    ask(ureq::delete(watched.url(&path.replace("{id}", "1")))).0,
                    401
                );
                assert!(answers.contains_key("401") && answers.contains_key("204"));
                continue;
            }
            if path == "/api/events" {
                continue; // it does not end; another test reads it
            }
            let (status, text) = watched.get(path);
            assert!(
                answers.contains_key(&status.to_string()),
                "{path}: {status}"
            );
            let schema = &answers["200"]["content"]["application/json"]["schema"];
            if !schema.is_null() {
                let value: Value = serde_json::from_str(&text).unwrap();
                fits(&document, schema, &value, path);
            }
        }
    }
}

fn fits(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = document.pointer(reference.trim_start_matches('#')).unwrap();
        return fits(document, schema, value, at);
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        one => vec![one.clone()],
    };
    let is = |name: &str| types.iter().any(|t| t == name);
    match value {
        Value::Null => assert!(is("null"), "{at}"),
        Value::Bool(_) => assert!(is("boolean"), "{at}"),
        Value::String(_) => assert!(is("string"), "{at}"),
        Value::Number(n) => assert!(is("number") || is("integer") && n.is_u64(), "{at}: {n}"),
        Value::Array(items) => {
            assert!(is("array"), "{at}");
            for item in items {
                fits(document, &schema["items"], item, at);
            }
        }
        Value::Object(object) => {
            assert!(is("object"), "{at}");
            if let Some(each) = schema.get("additionalProperties").filter(|s| s.is_object()) {
                for (name, value) in object {
                    fits(document, each, value, &format!("{at}.{name}"));
                }
                return;
            }
            let known = schema["properties"].as_object().unwrap();
            let names = |object: &serde_json::Map<String, Value>| {
                let mut names: Vec<String> = object.keys().cloned().collect();
                names.sort();
                names
            };
            assert_eq!(names(object), names(known), "{at}");
            for (name, value) in object {
                fits(document, &known[name], value, &format!("{at}.{name}"));
            }
        }
    }
}

#[test]
fn it_is_not_ready_in_a_drain() {
    let watched = Watched::start(&[]);
    assert_eq!(watched.get("/health/ready"), (200, "ready\n".to_owned()));
    assert_eq!(watched.get("/health/started").0, 200);
    // a peer that does not read what it is sent, for which the drain waits
    let mut peer = watched.peer(1);
    peer.set_nonblocking(true).unwrap();
    let full = frame(&vec![0; 60_000]);
    let mut sent = 0;
    watched.until("/api/statistics", |s| {
        while let Ok(n) = peer.write(&full[sent..]) {
            sent = (sent + n) % full.len();
        }
        s["queued_bytes"] != 0
    });
    watched.server.process.terminate();
    let began = Instant::now();
    while watched.get("/health/ready").0 != 503 {
        assert!(began.elapsed() < LIMIT);
    }
    assert_eq!(watched.get("/health/live").0, 200);
    assert_eq!(watched.json("/api/statistics")["ready"], false);
    let page = watched.get("/metrics").1;
    assert!(
        page.contains("network_system_ready{server=\"netsys\"} 0\n"),
        "{page}"
    );
    drop(peer);
}

#[test]
fn top_shows_the_same() {
    let watched = Watched::start(&[]);
    let peer = watched.peer(3);
    watched.until("/api/statistics", |s| s["messages_out"] == 3);
    let output = netsys()
        .args(["top", "--once", &watched.admin])
        .output()
        .unwrap();
    let (text, _) = common::ended(&output, 0);
    let address = peer.local_addr().unwrap().to_string();
    for wanted in [&*address, "tcp 1", "3 messages in all", "1 sessions"] {
        assert!(text.contains(wanted), "{wanted}\n{text}");
    }
    let output = netsys()
        .args(["top", "--once", "http://127.0.0.1:1"])
        .output()
        .unwrap();
    common::ended(&output, 3);
}

/// Chromium, which a script drives: right numbers, a kick by a click, nothing on the console.
#[cfg(target_os = "linux")]
#[test]
fn chromium_shows_the_numbers_of_the_api_and_kicks() {
    let watched = Watched::start(&[]);
    let (mut first, _second) = (watched.peer(7), watched.peer(2));
    watched.until("/api/statistics", |s| s["messages_out"] == 9);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dashboard.py");
    let mut python = std::process::Command::new("python3");
    let output = python.args([script, &watched.admin, TOKEN]).output();
    common::ended(&output.unwrap(), 0);
    assert!(
        matches!(first.read(&mut [0]), Ok(0) | Err(_)),
        "it is closed"
    );
}

/// At a restart the next process takes the address of the one before.
#[cfg(unix)]
#[test]
fn the_next_process_takes_the_address() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap().to_string();
    drop(free);
    let watched = Watched::start(&["--admin", &listen]);
    let before = watched.json("/api/statistics")["pid"].clone();
    watched.server.process.signal(rustix::process::Signal::USR2);
    let began = Instant::now();
    let after = loop {
        // for a moment nobody may listen
        let answer = ureq::get(watched.url("/api/statistics")).call().ok();
        let text = answer.and_then(|mut answer| answer.body_mut().read_to_string().ok());
        let pid = text.map(|text| serde_json::from_str::<Value>(&text).unwrap()["pid"].clone());
        match pid.filter(|pid| *pid != before) {
            Some(pid) => break pid,
            None => assert!(began.elapsed() < LIMIT),
        }
    };
    let pid = i32::try_from(after.as_i64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}
