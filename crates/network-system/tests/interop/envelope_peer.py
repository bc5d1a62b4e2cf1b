"""A peer that speaks the envelope: hello, messages, requests both ways, failures, heartbeats.

usage: envelope_peer.py HOST PORT
"""

import socket
import struct
import sys

HELLO, DATA, REQUEST, REPLY, FAILURE, PING, PONG, GOAWAY = (kind << 4 for kind in range(8))

stream = socket.create_connection((sys.argv[1], int(sys.argv[2])))
stream.settimeout(20)
reader = stream.makefile("rb")


def send(kind, *fields, payload=b""):
    body = bytes([kind]) + b"".join(fields) + payload
    stream.sendall(struct.pack(">I", len(body)) + body)


def receive():
    """The kind, the number behind it (0 where there is none) and the rest of the next message."""
    header = reader.read(4)
    if not header:
        return None
    body = reader.read(struct.unpack(">I", header)[0])
    if body[0] in (REQUEST, REPLY, FAILURE, PING, PONG):
        return body[0], struct.unpack(">Q", body[1:9])[0], body[9:]
    return body[0], 0, body[1:]


def expect(*wanted):
    got = receive()
    assert got == wanted, f"wanted {wanted}, got {got}"


number = struct.Struct(">Q").pack

# both sides begin with a hello
send(HELLO, b"NSE1")
expect(HELLO, 0, b"NSE1")

# a message on its own comes back as one
send(DATA, payload=b"echo me")
expect(DATA, 0, b"echo me")

# a ping is answered with its token
send(PING, number(0xFEDCBA9876543210))
expect(PONG, 0xFEDCBA9876543210, b"")

# requests are answered, out of order if need be; the server keeps `slow` back until `fast` came
send(REQUEST, number(7), payload=b"slow")
send(REQUEST, number(8), payload=b"fast")
expect(REPLY, 8, b"fast")
expect(REPLY, 7, b"slow")

# one that cannot be answered fails with a code
send(REQUEST, number(9), payload=b"fail")
kind, id, rest = receive()
assert (kind, id) == (FAILURE, 9), (kind, id)
(code,) = struct.unpack(">i", rest[:4])
assert (code, rest[4:]) == (-3, b"not for you"), (code, rest)

# the other way round: the server asks, and gets a reply to one and a failure to the other
send(DATA, payload=b"ask me")
kind, first, question = receive()
assert (kind, question) == (REQUEST, b"question 1"), (kind, question)
send(REPLY, number(first), payload=b"answer 1")
kind, second, question = receive()
assert (kind, question) == (REQUEST, b"question 2") and second != first, (kind, question)
send(FAILURE, number(second), struct.pack(">i", -2), payload=b"unknown here")
expect(DATA, 0, b"answer 1; -2")

# the server says so when it closes
send(DATA, payload=b"stop")
kind, _, why = receive()
assert kind == GOAWAY and why, (kind, why)
assert receive() is None, "then the end"
print("ok")
