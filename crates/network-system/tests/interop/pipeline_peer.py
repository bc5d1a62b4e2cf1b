"""A peer with a pipeline, written from docs/PROTOCOL.md on other people's lz4, zstd, zlib and Noise.

usage: pipeline_peer.py client|server PORT NOISE COMPRESSION [KEY [PEER]]

NOISE is none, NNpsk0, XX or IK; COMPRESSION is none, lz4, deflate or zstd, for what this peer sends; KEY is the
shared or our private key, PEER the other's public key, in hexadecimal. The client sends messages of all sizes to an
echo server; the server sends everything back, until the other side says goodbye. Either ends with a line on what it saw.
"""

import os
import random
import socket
import struct
import sys
import zlib

import lz4.block
import zstandard
from noise.connection import Keypair, NoiseConnection

PATTERNS = {"none": 0, "NNpsk0": 1, "XX": 2, "IK": 3}
ALGORITHMS = {"none": 0, "lz4": 1, "deflate": 2, "zstd": 3}
MORE, REKEY, GOODBYE = 0x10, 0x20, 0x40
RECORD, TAG = 65535, 16

role, port, pattern, compression = sys.argv[1:5]
key = bytes.fromhex(sys.argv[5]) if len(sys.argv) > 5 else None
other = bytes.fromhex(sys.argv[6]) if len(sys.argv) > 6 else None


def deflate(data):
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def inflate(data, size):
    unpacker = zlib.decompressobj(-15)
    message = unpacker.decompress(data)
    assert unpacker.eof and not unpacker.unused_data
    return message


PACK = {
    1: lambda data: lz4.block.compress(data, store_size=False),
    2: deflate,
    3: zstandard.ZstdCompressor().compress,
}
UNPACK = {
    1: lambda data, size: lz4.block.decompress(data, uncompressed_size=size),
    2: inflate,
    3: lambda data, size: zstandard.ZstdDecompressor().decompress(data, max_output_size=size),
}


class Peer:
    def __init__(self, stream, client):
        stream.settimeout(60)
        self.stream, self.reader = stream, stream.makefile("rb")
        self.seen, self.rekeyed, self.sent, self.largest = set(), 0, 0, 0
        offer = b"NSP1" + (b"c" if client else b"s")
        offer += bytes([0x0E, PATTERNS[pattern], 0])
        offer += os.urandom(16) if pattern != "none" else bytes(16)
        if client:
            self.send_frame(offer)
            theirs = self.receive_frame()
            prologue = offer + theirs
        else:
            theirs = self.receive_frame()
            self.send_frame(offer)
            prologue = theirs + offer
        assert theirs[:5] == b"NSP1" + (b"s" if client else b"c"), theirs
        assert theirs[6] == PATTERNS[pattern], theirs
        self.accepts = theirs[5]
        self.noise = self.shake_hands(client, prologue) if pattern != "none" else None

    def shake_hands(self, client, prologue):
        noise = NoiseConnection.from_name(f"Noise_{pattern}_25519_ChaChaPoly_BLAKE2s".encode())
        noise.set_as_initiator() if client else noise.set_as_responder()
        noise.set_prologue(prologue)
        if pattern == "NNpsk0":
            noise.set_psks(psk=key)
        else:
            noise.set_keypair_from_private_bytes(Keypair.STATIC, key)
            if pattern == "IK" and client:
                noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, other)
        noise.start_handshake()
        writes = client
        while not noise.handshake_finished:
            if writes:
                self.send_frame(bytes(noise.write_message()))
            else:
                frame = self.receive_frame()
                if frame == b"":
                    print("refused")
                    sys.exit(0)
                noise.read_message(frame)
            writes = not writes
        return noise

    def send_frame(self, frame):
        self.stream.sendall(struct.pack(">I", len(frame)) + frame)

    def receive_frame(self):
        header = self.reader.read(4)
        if not header:
            return None
        (length,) = struct.unpack(">I", header)
        frame = self.reader.read(length)
        assert len(frame) == length
        return frame

    def send(self, message):
        algorithm, body = ALGORITHMS[compression], message
        if algorithm and self.accepts >> algorithm & 1 and len(message) >= 100:
            packed = struct.pack(">I", len(message)) + PACK[algorithm](message)
            if len(packed) < len(message):
                body = packed
        if body is message:
            algorithm = 0
        if not self.noise:
            self.send_frame(bytes([algorithm]) + body)
            return
        frame = b""
        self.sent += 1
        rekey = REKEY if self.sent % 5 == 0 else 0
        while True:
            chunk, body = body[: RECORD - TAG - 1], body[RECORD - TAG - 1 :]
            header = algorithm | (MORE if body else rekey)
            frame += bytes(self.noise.encrypt(bytes([header]) + chunk))
            if not body:
                break
        if rekey:
            self.noise.noise_protocol.cipher_state_encrypt.rekey()
        self.send_frame(frame)

    def receive(self):
        """The next message; None at the end."""
        frame = self.receive_frame()
        if frame is None:
            assert not self.noise, "the end without a goodbye"
            return None
        self.largest = max(self.largest, len(frame))
        body = b""
        if self.noise:
            while True:
                record, frame = frame[:RECORD], frame[RECORD:]
                plain = bytes(self.noise.decrypt(record))
                header = plain[0]
                body += plain[1:]
                assert bool(header & MORE) == bool(frame), header
                if header & REKEY:
                    self.noise.noise_protocol.cipher_state_decrypt.rekey()
                    self.rekeyed += 1
                if not frame:
                    break
            if header == GOODBYE:
                assert body == b""
                return None
        else:
            header, body = frame[0], frame[1:]
        assert header & 0x80 == 0
        algorithm = header & 0x0F
        self.seen.add(algorithm)
        if algorithm:
            (size,) = struct.unpack(">I", body[:4])
            body = UNPACK[algorithm](body[4:], size)
            assert len(body) == size, (len(body), size)
        return body

    def close(self):
        if self.noise:
            self.send_frame(bytes(self.noise.encrypt(bytes([GOODBYE]))))
        self.stream.shutdown(socket.SHUT_WR)

    def report(self):
        seen = ",".join(str(algorithm) for algorithm in sorted(self.seen))
        print(f"ok seen={seen} rekeyed={self.rekeyed} largest={self.largest}")


def client():
    peer = Peer(socket.create_connection(("127.0.0.1", int(port))), True)
    chance = random.Random(7)
    sizes = [0, 1, 99, 100, 511, 512, 8192, 65517, 65518, 65519, 131036, 131037, 300000, 2000000]
    for size in sizes:
        text = (b"all work and no play %d, " % size * (size // 20 + 1))[:size]
        for message in (text, chance.randbytes(size)):
            peer.send(message)
            back = peer.receive()
            assert back == message, f"{size}: {back and len(back)}"
    # many at once, before anything is read
    burst = [b"number %d " % n * (n % 200) for n in range(300)]
    for message in burst:
        peer.send(message)
    for message in burst:
        assert peer.receive() == message
    peer.close()
    assert peer.receive() is None
    peer.report()


def server():
    listener = socket.create_server(("127.0.0.1", int(port)))
    print("port", listener.getsockname()[1], flush=True)
    stream, _ = listener.accept()
    peer = Peer(stream, False)
    while (message := peer.receive()) is not None:
        peer.send(message)
    try:
        peer.close()
    except OSError:
        pass  # who has said goodbye need not wait for ours
    peer.report()


{"client": client, "server": server}[role]()
