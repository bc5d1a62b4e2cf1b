//! The server and Python's standard library, which knows nothing of us: `socket` and `struct`.
#![cfg(unix)] // elsewhere it has other names
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use std::process::Command;

use common::{Server, ended, run};

const CLIENT: &str = r#"
import socket, struct, sys

port = int(sys.argv[1])
peer = socket.create_connection(("127.0.0.1", port), timeout=60)

def receive():
    def exactly(n):
        data = b""
        while len(data) < n:
            part = peer.recv(n - len(data))
            if not part:
                raise EOFError
            data += part
        return data
    return exactly(*struct.unpack(">I", exactly(4)))

messages = [b"", b"hello", bytes(range(256)) * 1000]
for message in messages:
    peer.sendall(struct.pack(">I", len(message)) + message)
    assert receive() == message, len(message)

# many in one write, and one byte by byte
peer.sendall(b"".join(struct.pack(">I", len(m)) + m for m in messages * 10))
for message in messages * 10:
    assert receive() == message
for byte in struct.pack(">I", 3) + b"abc":
    peer.sendall(bytes([byte]))
assert receive() == b"abc"

peer.shutdown(socket.SHUT_WR)
assert peer.recv(1) == b""
print("all came back")
"#;

#[test]
fn python_and_the_server_understand_each_other() {
    let server = Server::start(&[]);
    let mut command = Command::new("python3");
    command.args(["-", &server.port().to_string()]);
    let (out, _) = ended(&run(command, CLIENT.as_bytes()), 0);
    assert_eq!(out, "all came back\n");
}
