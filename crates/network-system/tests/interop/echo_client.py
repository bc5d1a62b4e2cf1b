"""Sends messages of many sizes to an echo server and checks that each comes back.

Only the standard library: what this speaks is the wire format, not our code.
usage: echo_client.py tcp HOST PORT | unix PATH
"""

import socket
import struct
import sys

SIZES = [0, 1, 63, 64, 65, 255, 8191, 8192, 8193, 65536, 1 << 20]


def connect(kind, *where):
    if kind == "unix":
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(where[0])
    else:
        stream = socket.create_connection((where[0], int(where[1])))
    stream.settimeout(20)
    return stream


def read_exactly(stream, n):
    parts = []
    while n:
        part = stream.recv(n)
        if not part:
            raise EOFError(f"the end came {n} bytes too early")
        parts.append(part)
        n -= len(part)
    return b"".join(parts)


def send(stream, payload):
    stream.sendall(struct.pack(">I", len(payload)) + payload)


def receive(stream):
    (length,) = struct.unpack(">I", read_exactly(stream, 4))
    return read_exactly(stream, length)


def payload(size):
    return bytes((i * 7 + size) & 0xFF for i in range(size))


def main():
    stream = connect(*sys.argv[1:])
    # one after the other
    for size in SIZES:
        send(stream, payload(size))
        assert receive(stream) == payload(size), size
    # many in one piece
    burst = [payload(i % 300) for i in range(500)]
    stream.sendall(b"".join(struct.pack(">I", len(p)) + p for p in burst))
    for sent in burst:
        assert receive(stream) == sent
    # one in many pieces
    whole = struct.pack(">I", 5) + b"hello" + struct.pack(">I", 3) + b"end"
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) if sys.argv[1] == "tcp" else None
    for i in range(len(whole)):
        stream.sendall(whole[i : i + 1])
    assert (receive(stream), receive(stream)) == (b"hello", b"end")
    # after our end of stream, what was asked before is still answered
    send(stream, b"last")
    stream.shutdown(socket.SHUT_WR)
    assert receive(stream) == b"last"
    assert stream.recv(1) == b"", "the server closes in good order"
    print("ok", len(SIZES) + len(burst) + 3)


main()
