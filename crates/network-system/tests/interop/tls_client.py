"""Speaks TLS with an echo server of default frames, and says what was agreed on.

Only the standard library. Prints `ok VERSION CIPHER ALPN SUBJECT RESUMED`, or `refused WHY`.
usage: tls_client.py PORT CA key=value...
  name=NAME     the name that the server must have (localhost)
  version=1.2   the only version
  alpn=A,B      application protocols
  cert=, key=   who we are
  end=cut       close the socket without a goodbye
  resume=1      connect once before, and resume
"""

import socket
import ssl
import struct
import sys

port, ca = int(sys.argv[1]), sys.argv[2]
options = dict(argument.split("=", 1) for argument in sys.argv[3:])


def read_exactly(stream, n):
    parts = b""
    while len(parts) < n:
        part = stream.recv(n - len(parts))
        if not part:
            raise EOFError("the end came too early")
        parts += part
    return parts


def round_trip(stream, payload):
    stream.sendall(struct.pack(">I", len(payload)) + payload)
    (length,) = struct.unpack(">I", read_exactly(stream, 4))
    assert read_exactly(stream, length) == payload, len(payload)


def context():
    made = ssl.create_default_context(cafile=ca)
    if "version" in options:
        version = getattr(ssl.TLSVersion, "TLSv" + options["version"].replace(".", "_"))
        made.minimum_version = made.maximum_version = version
        if version < ssl.TLSVersion.TLSv1_2:
            made.set_ciphers("DEFAULT@SECLEVEL=0")
    if "alpn" in options:
        made.set_alpn_protocols(options["alpn"].split(","))
    if "cert" in options:
        made.load_cert_chain(options["cert"], options["key"])
    return made


def connect(tls, session=None):
    plain = socket.create_connection(("127.0.0.1", port))
    plain.settimeout(20)
    return tls.wrap_socket(plain, server_hostname=options.get("name", "localhost"), session=session)


try:
    tls = context()
    stream = connect(tls)
    if "resume" in options:
        round_trip(stream, b"first")
        session = stream.session
        stream.unwrap().close()
        stream = connect(tls, session)
    for size in [0, 1, 16383, 16384, 16385, 65536, 1 << 20]:
        round_trip(stream, bytes(i * 7 & 0xFF for i in range(size)))
    subject = dict(pair[0] for pair in stream.getpeercert()["subject"])
    print("ok", stream.version(), stream.cipher()[0], stream.selected_alpn_protocol(),
          subject["commonName"], stream.session_reused)
    if options.get("end") == "cut":
        stream.detach() and None
        sys.stdout.flush()
    else:
        # our goodbye, and the server's
        stream.unwrap().close()
except (ssl.SSLError, OSError) as error:
    print("refused", error)
