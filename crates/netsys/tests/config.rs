//! `netsys config` and `--config`: what is printed can be fed back, and mistakes are named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use common::{Server, ended, netsys, run};

/// A file with `text`, and its path.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netsys.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

fn config(arguments: &[&str]) -> std::process::Output {
    let mut command = netsys();
    command.arg("config").args(arguments);
    run(command, b"")
}

fn table(text: &str) -> toml::Table {
    text.parse().unwrap()
}

#[test]
fn what_is_printed_can_be_fed_back() {
    let (defaults, _) = ended(&config(&["--print"]), 0);
    let (_folder, path) = file(&defaults);
    let (again, _) = ended(&config(&["--print", "--config", &path]), 0);
    assert_eq!(again, defaults);
    let (out, _) = ended(&config(&["--check", &path]), 0);
    assert_eq!(out, format!("{path}: right\n"));
    let parsed = table(&defaults);
    assert_eq!(parsed["mode"].as_str(), Some("echo"));
    assert_eq!(parsed["server"]["workers"].as_integer(), Some(1));
    assert_eq!(
        parsed["server"]["session"]["outbox"]["high"].as_integer(),
        Some(1 << 20)
    );
}

/// Every setting at another value than its default.
const OTHER: &str = r#"
mode = "upper"
log = "error"

[admin]
listen = "http://127.0.0.1:0"
token_file = ""

[server]
listen = ["tcp://127.0.0.1:0?framing=varint"]
workers = 2
max_connections = 5
handshake_timeout = "3s"
shutdown_timeout = "1m 30s"
drain_window = "3s"

[server.worker]
busy_poll = "50us"
pin = true

[server.session]
framing = "lines"
envelope = false
max_message = 1000
idle_timeout = "off"
close_timeout = "250ms"
request_timeout = "7s"

[server.session.limits]
hello_timeout = "off"
first_byte_timeout = "20s"
slow_reader_timeout = "off"
max_age = "1h"
max_age_jitter = 0.5
messages_per_second = 10
bytes_per_second = 1000
rate_burst = "2s"
rate_exceeded = "close"

[server.session.outbox]
high = 5000
low = 1000
overflow = "drop-oldest"

[server.session.heartbeat]
interval = "off"
missed = 7

[server.socket]
nodelay = false
keepalive = false
receive_buffer = 16384
send_buffer = 32768
unsent = 4096
backlog = 9
dual_stack = false

[server.tls]
certificates = [{ certificate = "/no/such/site.pem", key = "/no/such/site.key" }]
client_auth = "optional"
client_ca = ["/no/such/ca.pem"]
crl = ["/no/such/crl.pem"]
alpn = ["chat/2"]
min_version = "1.3"
resumption = false
reload_interval = "off"

[server.http]
messages = "/say"
websocket = "/ws"
grpc = true
compression = false
max_body = 1000
max_header = 9000
max_header_fields = 20
max_streams = 3
header_timeout = "4s"
body_timeout = "5s"
keep_alive = "6s"

[server.websocket]
subprotocols = ["chat"]
origins = ["*"]
max_header_bytes = 10000
max_headers = 11

[server.websocket.deflate]
level = 1
threshold = 100
server_window_bits = 10
client_window_bits = 11
server_context_takeover = false
client_context_takeover = false

[server.protection]
max_handshakes = 10
max_connections_per_ip = 9
connections_per_second_per_ip = 8
connection_burst_per_ip = 7
exempt = ["10.0.0.1"]
allow = ["127.0.0.0/8", "2001:db8::/32"]
deny = ["10.9.0.0/16"]
proxies = []
"#;

#[test]
fn every_setting_of_a_file_holds() {
    let (_folder, path) = file(OTHER);
    let (out, _) = ended(&config(&["--print", "--config", &path]), 0);
    assert_eq!(table(&out), table(OTHER));
    let server = Server::start_with(&["--config", &path]);
    assert_eq!(
        (&server.listening["mode"], &server.listening["workers"]),
        (&"upper".into(), &2.into())
    );
    let (out, _) = ended(&server.connect(&[], b"hello\n"), 0);
    assert_eq!(out, "HELLO\n");
    // above max_message of the file
    let (_, err) = ended(&server.connect(&["--count", "1"], &[b'x'; 1001]), 1);
    assert!(err.contains("the peer closed the connection"), "{err}");
}

#[test]
fn the_command_line_beats_the_file_and_the_file_the_default() {
    let (_folder, path) = file("mode = \"upper\"\nlog = \"info\"\nserver.workers = 3\n");
    let arguments = [
        "--config",
        &path,
        "--workers",
        "2",
        "--listen",
        "tcp://127.0.0.1:9",
    ];
    let print = |more: &[&str], env: Option<(&str, &str)>| {
        let mut command = netsys();
        command.args(["config", "--print"]).args(more).envs(env);
        table(&ended(&run(command, b""), 0).0)
    };
    let settings = print(&arguments, None);
    assert_eq!(settings["mode"].as_str(), Some("upper"));
    assert_eq!(settings["server"]["workers"].as_integer(), Some(2));
    let listen = settings["server"]["listen"].as_array().unwrap();
    assert_eq!(listen[..], ["tcp://127.0.0.1:9".into()]);
    assert_eq!(
        settings["server"]["max_connections"].as_integer(),
        Some(10_000)
    );
    assert_eq!(settings["log"].as_str(), Some("info"));

    let settings = print(&["--log", "off"], Some(("NETSYS_CONFIG", &path)));
    assert_eq!(settings["server"]["workers"].as_integer(), Some(3));
    assert_eq!(
        settings["server"]["listen"][0].as_str(),
        Some("auto://127.0.0.1:8080")
    );
    assert_eq!(settings["log"].as_str(), Some("off"));
    let settings = print(&["--config", &path], Some(("NETSYS_LOG", "debug")));
    assert_eq!(settings["log"].as_str(), Some("debug"));
}

#[test]
fn mistakes_are_named_with_file_line_key_and_what_is_allowed() {
    for (text, wanted) in [
        (
            "[server.session]\n\nmax_mesage = 1\n",
            &[
                "unknown key `server.session.max_mesage` in",
                "netsys.toml:3",
                "did you mean `max_message`?",
            ][..],
        ),
        (
            "workers = 1\n",
            &["unknown key `workers`", "did you mean `server.workers`?"],
        ),
        (
            "mode = 3\n",
            &["wrong value for `mode` in", ":1: ", "\"upper\""],
        ),
        (
            "[server.session]\nidle_timeout = \"soon\"\n",
            &["`server.session.idle_timeout` in", ":2: ", "or \"off\""],
        ),
        (
            "server.session.outbox.low = 9999999\n",
            &["session.outbox.low must not be larger"],
        ),
        (
            "server.listen = []\n",
            &["no address to listen on", "a list of addresses"],
        ),
        (
            "server.listen = [\"tcp://h:99999\"]\n",
            &["is not a port", "^^^^^"],
        ),
        (
            "server.session.framing = \"lines\"\nserver.session.envelope = true\n",
            &["length-prefixed"],
        ),
        (
            "[server.tls]\nmin_version = \"1.1\"\n",
            &["`server.tls.min_version` in", ":2: ", "`1.2`"],
        ),
        (
            "server.tls.certificates = [{ certificate = \"a.pem\" }]\n",
            &[
                "`server.tls.certificates` in",
                "missing field `key`",
                "key = ",
            ],
        ),
        (
            "[server.tls]\nclient_ca = [\"ca.pem\"]\n",
            &["tls.client_auth must be \"optional\" or \"required\""],
        ),
        (
            "log = \"loud\"\n",
            &["'loud' is not a log filter", "off, error, warn"],
        ),
        ("mode = \n", &["no valid TOML in", ":1: "]),
    ] {
        let (_folder, path) = file(text);
        for arguments in [["config", "--check", &path], ["serve", "--config", &path]] {
            let mut command = netsys();
            command.args(arguments);
            let (out, err) = ended(&run(command, b""), 2);
            assert_eq!(out, "");
            assert!(err.starts_with("error: ") && err.contains("[-1]"), "{err}");
            for wanted in wanted {
                assert!(err.contains(wanted), "{text}: {err}");
            }
        }
    }
    let (_, err) = ended(&config(&["--check", "/no/such.toml"]), 2);
    assert!(err.contains("could not read /no/such.toml: "), "{err}");
}

#[test]
fn config_wants_to_know_what_to_do() {
    ended(&config(&[]), 2);
    ended(&config(&["--print", "--check", "x.toml"]), 2);
}
