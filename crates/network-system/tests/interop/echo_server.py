"""Serves one connection as an echo server and then says how many messages it saw.

usage: echo_server.py
"""

import socket
import struct

listener = socket.create_server(("127.0.0.1", 0))
listener.settimeout(20)
print(listener.getsockname()[1], flush=True)
stream, _ = listener.accept()
stream.settimeout(20)
count = 0
with stream, stream.makefile("rb") as reader:
    while header := reader.read(4):
        (length,) = struct.unpack(">I", header)
        payload = reader.read(length)
        assert len(payload) == length
        stream.sendall(header + payload)
        count += 1
print("messages", count)
