"""Serves one connection with TLS as an echo server, and says who came and how many messages.

usage: tls_server.py CERTIFICATE KEY [CLIENT_CA]
"""

import socket
import ssl
import struct
import sys

tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(sys.argv[1], sys.argv[2])
tls.set_alpn_protocols(["netsys"])
if len(sys.argv) > 3:
    tls.load_verify_locations(sys.argv[3])
    tls.verify_mode = ssl.CERT_REQUIRED
listener = socket.create_server(("127.0.0.1", 0))
listener.settimeout(20)
print(listener.getsockname()[1], flush=True)
plain, _ = listener.accept()
plain.settimeout(20)
count = 0
with tls.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as stream:
    peer = stream.getpeercert() or {}
    names = [value for _, value in peer.get("subjectAltName", ())]
    with stream.makefile("rb") as reader:
        # an end without a goodbye would be an error here
        while header := reader.read(4):
            (length,) = struct.unpack(">I", header)
            payload = reader.read(length)
            assert len(payload) == length
            stream.sendall(header + payload)
            count += 1
    print("ok", stream.version(), stream.selected_alpn_protocol(), ",".join(names), count)
