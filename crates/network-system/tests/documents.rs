//! The documents say what is true: every byte and Python peer in `docs/PROTOCOL.md` is played against
//! servers, and the tests that `docs/FEATURES.md` names exist. (The README's code is a doc test.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::time::Duration;

use common::{read_to_end, within};
use network_system::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The code blocks of the document whose first line ends with `info`.
fn blocks(info: &str) -> Vec<&'static str> {
    let start = format!("```{info}\n");
    let text = include_str!("../../../docs/PROTOCOL.md");
    let blocks = text.split(&start).skip(1);
    let blocks: Vec<&str> = blocks.filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty(), "no block {info}");
    blocks
}

/// The bytes of a line such as `> 00 01   # why`.
fn bytes(line: &str) -> Vec<u8> {
    let line = line.split('#').next().unwrap();
    let digits = line[1..].split_whitespace();
    digits
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

/// Plays a block of the document: sends what goes to the server, and fails unless what comes from
/// it is there byte for byte.
async fn play(block: &str, stream: &mut TcpStream) {
    for line in block.lines() {
        let bytes = bytes(line);
        if line.starts_with('>') {
            stream.write_all(&bytes).await.unwrap();
        } else {
            let mut got = vec![0; bytes.len()];
            within(stream.read_exact(&mut got)).await.unwrap();
            assert_eq!(got, bytes, "{line}");
        }
    }
}

/// A server that sends messages and requests back, but for empty requests.
async fn documented(query: &str) -> (Server, TcpStream, String) {
    let server = Server::builder()
        .listen(format!("tcp://127.0.0.1:0?{query}"))
        .on_message(|session, message| async move { session.send(message).await })
        .on_request(|_, request| async move {
            if request.is_empty() {
                request.fail(-2, "no");
                return Ok(());
            }
            let message = request.message().clone();
            request.reply(message).await
        })
        .start()
        .await
        .unwrap();
    let port = server.listening()[0].port().unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    (server, stream, port.to_string())
}

#[tokio::test]
async fn the_bytes_in_the_protocol_are_what_is_sent() {
    for (info, query) in [
        ("text plain", "framing=length"),
        ("text varint", "framing=varint"),
        ("text length:2le", "framing=length:2le"),
        ("text lines", "framing=lines"),
        ("text envelope", "envelope=true"),
        ("text failure", "envelope=true"),
        #[cfg(feature = "compression")]
        ("text pipeline", "pipeline=true"),
    ] {
        let (_server, mut stream, _) = documented(query).await;
        for block in blocks(info) {
            play(block, &mut stream).await;
        }
        // and nothing else comes
        stream.shutdown().await.unwrap();
        let (rest, end) = read_to_end(&mut stream).await;
        assert!(rest.is_empty() && end.is_ok(), "{info}: {rest:x?} {end:?}");
    }
}

#[tokio::test]
async fn the_goaway_in_the_protocol_is_what_a_shutdown_sends() {
    let (server, mut stream, _) = documented("envelope=true").await;
    let block = blocks("text goaway")[0].trim_end();
    let (hellos, goaway) = block.rsplit_once('\n').unwrap();
    play(hellos, &mut stream).await;
    let peer = async {
        play(goaway, &mut stream).await;
        let (rest, end) = read_to_end(&mut stream).await;
        assert!(rest.is_empty() && end.is_ok(), "{rest:x?} {end:?}");
        drop(stream);
    };
    let deadline = Duration::from_secs(10);
    let ((), report) = tokio::join!(peer, server.shutdown(deadline));
    assert_eq!((report.drained, report.cut), (1, 0));
}

/// What the rules of the envelope forbid ends the connection, without a word on the wire.
#[tokio::test]
async fn what_the_protocol_forbids_is_an_end() {
    let hello = "00 00 00 05 00 4e 53 45 31";
    let too_large = format!("{hello} 00 00 00 07 10 68 65 6c 6c 6f 21");
    let unknown_kind = format!("{hello} 00 00 00 01 80");
    let reserved_bits = format!("{hello} 00 00 00 01 11");
    let cut_short = format!("{hello} 00 00 00 05 20 00 00 00 00");
    for wrong in [
        "00 00 00 02 10 68",          // no hello
        "00 00 00 00",                // nothing
        "00 00 00 05 00 4e 53 45 32", // another version
        &unknown_kind,
        &reserved_bits,
        &cut_short,
        &too_large,
    ] {
        let (_server, mut stream, _) = documented("envelope=true&max_message=6").await;
        let wrong = bytes(&format!("> {wrong}"));
        stream.write_all(&wrong).await.unwrap();
        let (came, end) = read_to_end(&mut stream).await;
        assert!(end.is_ok(), "{wrong:x?}: {end:?}");
        assert_eq!(came, bytes(&format!("< {hello}")), "{wrong:x?}");
    }
    // the header counts towards the limit: five bytes behind it are the most
    let (_server, mut stream, _) = documented("envelope=true&max_message=6").await;
    let data = "00 00 00 06 10 68 65 6c 6c 6f";
    let both = format!("> {hello} {data}\n< {hello} {data}");
    play(&both, &mut stream).await;
}

/// Debian's Python and everybody else's; Windows has none of this name.
#[cfg(unix)]
#[tokio::test]
async fn the_python_peers_in_the_protocol_work() {
    let peers = blocks("python");
    assert_eq!(peers.len(), 2);
    for (program, query) in peers.into_iter().zip(["framing=length", "envelope=true"]) {
        let (_server, _stream, port) = documented(query).await;
        let mut python = tokio::process::Command::new("python3");
        python.args(["-c", program, &port]).kill_on_drop(true);
        let output = within(python.output()).await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.stdout, b"ok\n", "{query}: {errors}");
    }
}

/// A row of the table is as good as its test.
#[test]
fn the_tests_that_the_features_name_exist() {
    let features = include_str!("../../../docs/FEATURES.md");
    // row, promise, where, test, status
    let named = named_tests(features, 4);
    assert!(named > 50, "only {named} tests are named");
    for row in features.lines().filter(|row| row.ends_with("| done |")) {
        let tests = row.split('|').nth(4).unwrap_or_default();
        assert!(tests.contains('`'), "done without a test: {row}");
    }
}

/// A limit that no test trips may be none.
#[test]
fn the_tests_that_the_limits_name_exist() {
    let limits = include_str!("../../../docs/LIMITS.md");
    // limit, default, code, key, label, test
    let named = named_tests(limits, 6);
    assert!(named > 40, "only {named} tests are named");
    let rows = limits
        .lines()
        .filter(|row| row.starts_with("| ") && !row.starts_with("| Limit"));
    for row in rows {
        let tests = row.split('|').nth(6).unwrap_or_default();
        assert!(tests.contains(".rs`: `"), "no test trips {row}");
    }
}

/// Whoever trips a limit of a server, others on it notice nothing: some test of each has a client that
/// goes on meanwhile.
#[test]
fn the_limits_are_tripped_beside_a_healthy_client() {
    let limits = include_str!("../../../docs/LIMITS.md");
    let (servers, _) = limits.split_once("\n## Clients").expect("the table");
    // a table without a server; all sessions are concerned, and their peers are looked at
    let others = [
        "| addresses that are remembered",
        "| age;",
        "| drain at shutdown",
        // beside the server, with one of their own
        "| readers of `/api/events`",
        "| history",
    ];
    let mut rows = 0;
    for row in servers.lines().filter(|row| row.starts_with("| ")) {
        if row.starts_with("| Limit") || others.iter().any(|other| row.starts_with(other)) {
            continue;
        }
        // `run` of `slow_peers.rs` has one
        let healthy = tests_of(row, 6).any(|(file, name)| {
            let test = file.split_once(&format!("fn {name}()"));
            let body = test.and_then(|(_, rest)| rest.split("\n}\n").next());
            body.is_some_and(|body| {
                [
                    "healthy.finish()",
                    "bystander.finish()",
                    "bystander.works()",
                    "run(OverflowPolicy",
                ]
                .iter()
                .any(|look| body.contains(look))
            })
        });
        assert!(healthy, "nobody looks at the others in {row}");
        rows += 1;
    }
    assert!(rows >= 20, "{rows}");
}

/// Fails unless there are all tests in this column of the tables; how many there are.
fn named_tests(document: &str, column: usize) -> usize {
    let rows = document.lines().filter(|row| row.starts_with("| "));
    let named = rows.flat_map(|row| tests_of(row, column).map(move |test| (row, test)));
    let exists = |(row, (file, name)): (&str, (String, &str))| {
        let exists = file.contains(&format!("fn {name}()"));
        assert!(exists, "there is no test {name}, in the row {row}");
    };
    named.map(exists).count()
}

/// The tests that this column of a row names, each with what is in its file.
fn tests_of(row: &str, column: usize) -> impl Iterator<Item = (String, &str)> {
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tests = row.split('|').nth(column).unwrap_or_default();
    let mut file = String::new();
    let words = tests.split('`').skip(1).step_by(2);
    words.filter_map(move |word| {
        if word.ends_with(".rs") {
            file = std::fs::read_to_string(crates.join(word)).expect(word);
            return None;
        }
        Some((file.clone(), word))
    })
}
