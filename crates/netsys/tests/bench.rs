//! `netsys bench` as its users run it: every workload, and every kind of wrong delivery.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use serde_json::Value;

/// The peers that a comparison consists of.
const PEERS: &[&str] = &["raw", "ours"];

fn netsys(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netsys"));
    command.args(line.split_whitespace());
    command
}

/// Runs to the end. Standard input stays open meanwhile: roles exit when it ends.
fn run(line: &str) -> Output {
    let mut command = netsys(line);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let input = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(input);
    output
}

fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(line: &str) -> Value {
    let output = run(&format!(
        "bench --placement free --seconds 0.05 --rounds 2 --json {line}"
    ));
    assert!(output.status.success(), "{line}: {}", error_of(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Measures one case and checks that what was sent arrived, in every round of every peer.
fn verified(line: &str) -> Value {
    let report = json(line);
    let case = report["cases"][0].clone();
    let rounds = case["rounds"].as_array().unwrap();
    let order: Vec<&str> = rounds
        .iter()
        .map(|round| round["peer"].as_str().unwrap())
        .collect();
    assert_eq!(order, PEERS.repeat(2), "rounds must alternate");
    for round in rounds {
        assert!(round["sent"]["messages"].as_u64().unwrap() > 0, "{round}");
        assert_eq!(round["sent"], round["received"]);
        assert!(round["per_second"].as_f64().unwrap() > 0.0, "{round}");
    }
    for row in case["summary"].as_array().unwrap() {
        let of_row = rounds.iter().filter(|round| round["peer"] == row["peer"]);
        let messages = of_row.map(|round| round["received"]["messages"].as_u64().unwrap());
        assert_eq!(row["verified_messages"], messages.sum::<u64>());
    }
    case
}

fn has_latency(case: &Value) -> bool {
    case["rounds"].as_array().unwrap().iter().all(|round| {
        let at = |name: &str| round["latency_us"][name].as_f64().unwrap_or(0.0);
        at("p50") > 0.0
            && at("p50") <= at("p90")
            && at("p90") <= at("p99")
            && at("p99") <= at("p999")
            && at("p999") <= at("max")
    })
}

#[test]
fn stream_is_counted_and_summed_by_the_server() {
    for size in [16, 64, 1001, 300_000] {
        let case = verified(&format!("-w stream -s {size}"));
        assert_eq!(case["size"], size);
    }
}

#[test]
fn echo_keeps_a_window_under_way() {
    for options in [
        "-s 64",
        "-s 19 --window 1000",
        "-s 8192",
        "-s 100000 --window 40",
    ] {
        assert!(
            has_latency(&verified(&format!("-w echo {options}"))),
            "{options}"
        );
    }
}

#[test]
fn ping_measures_each_message() {
    assert!(has_latency(&verified("-w ping")));
}

#[test]
fn many_connections_share_the_load() {
    for options in [
        "",
        "--connections 300 --window 1",
        "-c 3 -s 100000 --window 30",
    ] {
        let case = verified(&format!("-w many {options}"));
        assert!(has_latency(&case), "{options}");
    }
}

#[test]
fn connect_counts_connections() {
    assert!(has_latency(&verified("-w connect")));
}

#[cfg(target_os = "linux")]
#[test]
fn idle_weighs_connections() {
    let case = verified("-w idle -c 200");
    for round in case["rounds"].as_array().unwrap() {
        assert_eq!(round["sent"]["messages"], 200);
        let kib = |name: &str| round["memory"][name].as_f64().unwrap();
        assert!(kib("at_rest_kib") > 100.0, "{round}");
        let per_connection = (kib("loaded_kib") - kib("at_rest_kib")) / 200.0;
        assert!(
            (kib("per_connection_kib") - per_connection).abs() < 1e-6,
            "{round}"
        );
    }
}

#[test]
fn tls_is_measured_beside_both_without_it() {
    let workloads = match cfg!(target_os = "linux") {
        true => "stream,echo,ping,many,connect,idle",
        false => "stream,echo,ping,many,connect",
    };
    let report = json(&format!("--tls -c 3 -w {workloads}"));
    for case in report["cases"].as_array().unwrap() {
        let rounds = case["rounds"].as_array().unwrap();
        let order: Vec<&Value> = rounds.iter().map(|round| &round["peer"]).collect();
        assert_eq!(order, ["raw", "ours", "ours-tls"].repeat(2));
        for round in rounds {
            assert!(round["sent"]["messages"].as_u64().unwrap() > 0, "{round}");
            assert_eq!(round["sent"], round["received"]);
        }
        assert_eq!(case["summary"][2]["peer"], "ours-tls");
    }
    // it is TLS, and the certificate is checked
    let mut server = role("bench-server --impl ours-tls --workload echo");
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let ready = lines.next().unwrap().unwrap();
    let url = ready.strip_prefix("READY ").unwrap();
    let (url, certificate) = url.split_once(' ').unwrap();
    assert!(url.starts_with("tls://127.0.0.1:"), "{url}");
    let options = "--impl ours-tls --workload echo";
    let output = client(url, options);
    assert!(!output.status.success());
    assert!(
        error_of(&output).contains("authority"),
        "{}",
        error_of(&output)
    );
    let output = client(url, &format!("{options} --ca {certificate}"));
    assert!(output.status.success(), "{}", error_of(&output));
    drop(server.stdin.take());
    assert!(server.wait().unwrap().success());
}

/// All that can be done to messages on their way, in turn with both without it, on messages of JSON.
#[test]
fn compression_and_encryption_are_measured_beside_plain() {
    let workloads = match cfg!(target_os = "linux") {
        true => "stream,echo,ping,many,connect,idle",
        false => "stream,echo,ping,many,connect",
    };
    let line = format!("--tls --compress lz4,deflate,zstd:9,lz4 --noise -c 3 -w {workloads}");
    let report = json(&line);
    assert_eq!(report["settings"]["payload"], "json");
    let peers = [
        "raw",
        "ours",
        "ours-tls",
        "ours-lz4",
        "ours-deflate",
        "ours-zstd:9",
        "ours-noise",
    ];
    for case in report["cases"].as_array().unwrap() {
        assert_eq!(case["size"], 1024);
        let rounds = case["rounds"].as_array().unwrap();
        let order: Vec<&Value> = rounds.iter().map(|round| &round["peer"]).collect();
        assert_eq!(order, peers.repeat(2));
        for round in rounds {
            assert!(round["sent"]["messages"].as_u64().unwrap() > 0, "{round}");
            assert_eq!(round["sent"], round["received"]);
        }
        let summary = case["summary"].as_array().unwrap();
        assert_eq!(summary.len(), peers.len());
        if case["workload"] == "connect" || case["workload"] == "idle" {
            continue;
        }
        // what left for the socket shows that it is what its name says; JSON like this can be made about
        // half as long, and not a hundredth
        for row in summary {
            let bytes = row["wire_bytes_per_message"].as_f64();
            let expected = match row["peer"].as_str().unwrap() {
                "raw" => continue,
                "ours" | "ours-tls" => 1028.0..1100.0,
                "ours-noise" => 1045.0..1120.0,
                _ => 400.0..900.0,
            };
            assert!(bytes.is_some_and(|b| expected.contains(&b)), "{row}");
        }
    }
}

#[test]
fn what_a_pipeline_is_measured_with_is_what_was_agreed_on() {
    // a server that insists on encryption, and clients with another key, with none, and with its key
    let mut server = role("bench-server --impl ours --noise --workload echo");
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let ready = lines.next().unwrap().unwrap();
    let (url, key) = ready
        .strip_prefix("READY ")
        .unwrap()
        .split_once(' ')
        .unwrap();
    let other = "00".repeat(32);
    for (options, works) in [
        ("", false),
        (&*format!("--psk {other}"), false),
        (&*format!("--psk {key}"), true),
    ] {
        let output = client(url, &format!("--impl ours --workload echo {options}"));
        assert_eq!(output.status.success(), works, "{}", error_of(&output));
    }
    drop(server.stdin.take());
    assert!(server.wait().unwrap().success());
    // one without a pipeline is no server for a client that compresses
    let mut server = role("bench-server --impl ours --workload echo");
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let ready = lines.next().unwrap().unwrap();
    let url = ready.strip_prefix("READY ").unwrap();
    assert!(
        !client(url, "--impl ours --workload echo --compress lz4")
            .status
            .success()
    );
    assert!(client(url, "--impl ours --workload echo").status.success());
    drop(server.stdin.take());
    assert!(server.wait().unwrap().success());
}

#[test]
fn the_table_and_the_chart_show_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("share.svg");
    let line = format!(
        "bench --placement free --seconds 0.05 --rounds 1 -w echo,ping --compress zstd -s 64,2000 --svg {}",
        chart.display()
    );
    let output = run(&line);
    assert!(output.status.success(), "{}", error_of(&output));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.contains("p99.9 us") && !table.contains('\u{1b}'),
        "{table}"
    );
    let svg = std::fs::read_to_string(chart).unwrap();
    assert!(table.contains("messages of JSON"), "{table}");
    assert!(svg.contains("JSON"), "{svg}");
    for title in [
        "echo 64 B, window 256",
        "ping 64 B",
        "ping 2000 B",
        "ours-zstd",
    ] {
        assert!(table.contains(title), "{table}");
        assert!(svg.contains(title), "{svg}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn one_core_is_enough() {
    let output = run("bench --placement same-core --seconds 0.05 --rounds 1 -w echo --json");
    assert!(output.status.success(), "{}", error_of(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["settings"]["placement"], "same-core");
    assert!(
        report["cases"][0]["rounds"][0]["cpu_seconds_per_million"]
            .as_f64()
            .unwrap()
            > 0.0
    );
}

/// A server that sends back what `change` makes of each piece it reads; `change` also gets how
/// many bytes came before the piece on its connection. Returns the URL.
fn server(change: fn(&mut Vec<u8>, usize)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap(), change));
        }
    });
    url
}

fn serve(mut stream: TcpStream, change: fn(&mut Vec<u8>, usize)) {
    let (mut buffer, mut before) = (vec![0; 1 << 16], 0);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let mut piece = buffer[..count].to_vec();
        change(&mut piece, before);
        before += count;
        // A client that has found a fault is gone.
        if stream.write_all(&piece).is_err() {
            return;
        }
    }
}

fn flip_one(piece: &mut [u8], before: usize) {
    // Inside the body of the first message: 4 bytes of length, then kind, number and body.
    if let Some(byte) = 40usize.checked_sub(before).and_then(|at| piece.get_mut(at)) {
        *byte ^= 1;
    }
}

fn client(url: &str, options: &str) -> Output {
    run(&format!(
        "bench-client --url {url} --seconds 0.2 --deadline 20 {options}"
    ))
}

const ECHOES: [&str; 6] = [
    "--workload echo --window 256",
    "--workload echo --window 256 --size 8192",
    "--workload ping",
    "--workload many --connections 3 --window 4",
    "--workload connect",
    "--workload idle --connections 2",
];

#[test]
fn a_flipped_byte_in_an_echo_is_found() {
    let url = server(|piece, before| flip_one(piece, before));
    for options in ECHOES {
        let output = client(&url, options);
        let text = error_of(&output);
        assert_eq!(output.status.code(), Some(1), "{options}: {text}");
        assert!(text.contains("checksum mismatch"), "{options}: {text}");
        assert!(output.stdout.is_empty(), "a failure has no result");
    }
}

#[test]
fn an_end_of_the_connection_is_found() {
    let url = server(|piece, before| {
        if before > 0 {
            piece.truncate(piece.len() / 2);
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closing = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || listener.incoming().for_each(drop));
    let output = client(&closing, "--workload ping");
    assert_eq!(output.status.code(), Some(1), "{}", error_of(&output));
    // Half of a piece missing: what follows is not the message that is due.
    let output = client(&url, "--workload echo --window 16");
    assert_eq!(output.status.code(), Some(1), "{}", error_of(&output));
}

#[test]
fn swapped_messages_are_found() {
    let url = server(|piece, before| {
        if before == 0 {
            let (first, rest) = piece.split_at_mut(68);
            first.swap_with_slice(&mut rest[..68]);
        }
    });
    let output = client(&url, "--workload echo --window 2");
    let text = error_of(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("out of order: message 1 came back where 0 was due"),
        "{text}"
    );
}

#[test]
fn stream_refuses_a_server_that_only_echoes_and_says_what_to_do() {
    let output = client(&server(|_, _| {}), "--workload stream");
    let text = error_of(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("netsys bench-server --workload stream"),
        "{text}"
    );
}

/// Answers like a counting server, except that one message is missing from the final answer.
fn forgetful() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let (mut count, mut sum) = (0u64, 0u64);
        loop {
            let mut message = [0; 68];
            if stream.read_exact(&mut message).is_err() {
                return;
            }
            let body = &mut message[4..];
            if body[0] == b'S' {
                count += 1;
                for word in body.chunks(8) {
                    sum = sum.wrapping_add(u64::from_le_bytes(word.try_into().unwrap()));
                }
            } else {
                body[1..8].copy_from_slice(b"tallied");
                body[8..16].copy_from_slice(&count.saturating_sub(1).to_le_bytes());
                body[16..24].copy_from_slice(&sum.to_le_bytes());
                stream.write_all(&message).unwrap();
            }
        }
    });
    url
}

#[test]
fn a_lost_message_in_a_stream_is_found() {
    let output = client(&forgetful(), "--workload stream");
    let text = error_of(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("delivery failed") && text.contains("arrived"),
        "{text}"
    );
}

#[test]
fn a_url_is_loaded_beside_the_ceiling() {
    let url = server(|_, _| {});
    let report = json(&format!("{url} -w echo,connect"));
    for case in report["cases"].as_array().unwrap() {
        let peers: Vec<&Value> = case["summary"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| &row["peer"])
            .collect();
        assert_eq!(peers, ["raw", "target"]);
        assert!(
            case["summary"][1]["share_of_raw"]["median"]
                .as_f64()
                .unwrap()
                > 0.0
        );
    }
}

#[test]
fn a_wrong_server_fails_the_whole_benchmark_and_names_the_round() {
    let url = server(|piece, before| flip_one(piece, before));
    let output = run(&format!(
        "bench {url} --placement free --seconds 0.05 --json -w ping"
    ));
    let text = error_of(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("ping 64 B: round 1/5 target: target client: checksum mismatch"),
        "{text}"
    );
    assert!(output.stdout.is_empty(), "a failure has no result");
}

#[test]
fn options_that_cannot_be_carried_out_have_their_own_exit_code() {
    for (line, part) in [
        ("bench -s 15", "16 bytes"),
        ("bench -w many -c 100000000", "open files"),
        ("bench tcp://127.0.0.1:1 -w idle", "leave the URL out"),
        ("bench nonsense", "tcp://127.0.0.1:8080"),
        ("bench -w nonsense", "possible values"),
        ("bench --compress zstd:77", "is no compression"),
        ("bench tcp://127.0.0.1:1 --noise", "cannot be used with"),
    ] {
        let output = run(line);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{line}: {}",
            error_of(&output)
        );
        assert!(
            error_of(&output).contains(part),
            "{line}: {}",
            error_of(&output)
        );
    }
}

#[test]
fn a_server_role_ends_with_its_input() {
    for workload in ["echo", "many"] {
        let mut child = role(&format!("bench-server --workload {workload}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.next().unwrap().unwrap();
        assert!(ready.starts_with("READY tcp://127.0.0.1:"), "{ready}");
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let usage: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(usage["cpu_seconds"].as_f64().unwrap() > 0.0);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}

fn role(line: &str) -> Child {
    netsys(line)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_reaps_every_child_and_has_its_own_exit_code() {
    use rustix::process::{Pid, Signal, kill_process};

    let mut command = netsys("bench --placement free --seconds 0.02 --rounds 1000000 -w echo");
    let mut bench = command
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(bench.stderr.take().unwrap()).lines();
    assert!(errors.next().unwrap().unwrap().contains("round 1/"));
    let children = || -> Vec<String> {
        let processes = std::fs::read_dir("/proc").unwrap();
        let is_child = |process: &String| {
            let status = std::fs::read_to_string(format!("/proc/{process}/status"));
            status.is_ok_and(|status| status.contains(&format!("\nPPid:\t{}\n", bench.id())))
        };
        processes
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(is_child)
            .collect()
    };
    // Between two measurements there is a moment without children.
    let found = std::iter::repeat_with(children)
        .find(|found| !found.is_empty())
        .unwrap();
    kill_process(Pid::from_child(&bench), Signal::INT).unwrap();
    let rest: Vec<String> = errors.map(Result::unwrap).collect();
    assert_eq!(bench.wait().unwrap().code(), Some(130), "{rest:?}");
    assert_eq!(rest.last().unwrap(), "error: interrupted");
    for process in found {
        assert!(
            !std::path::Path::new("/proc").join(&process).exists(),
            "{process} is left"
        );
    }
}
