"""Who is compared, on what, and how each program is built."""
from collections import namedtuple

# The build that makes it, its program below the build folder, and what it is.
Peer = namedtuple("Peer", "build program about")

PEERS = {
    "raw": Peer("raw", "raw", "plain sockets in C, no message API: the ceiling"),
    "ours": Peer("rust", "cargo/release/ours", "this library, handler level"),
    "ours-coroutine": Peer("rust", "cargo/release/ours_coroutine", "this library, coroutine level"),
    "tokio-loop": Peer("rust", "cargo/release/tokio_loop", "the least that tokio needs"),
    "mio-loop": Peer("rust", "cargo/release/mio_loop", "the least that mio needs"),
    "tokio-codec": Peer("rust", "cargo/release/tokio_codec", "tokio, LengthDelimitedCodec"),
    "asio": Peer("asio", "asio", "standalone asio, C++"),
    "beast": Peer("beast", "beast", "Boost.Beast WebSocket, C++"),
    "tungstenite": Peer("rust", "cargo/release/tungstenite", "tokio-tungstenite WebSocket"),
    "zeromq": Peer("zeromq", "zeromq", "libzmq, C"),
    "nng": Peer("nng", "nng", "nng, C"),
    "grpc": Peer("grpc", "grpc", "gRPC C++"),
    "tonic": Peer("rust", "cargo/release/tonic", "gRPC in Rust"),
    "quinn": Peer("rust", "cargo/release/quinn", "QUIC, the only one that encrypts"),
    "message-io": Peer("rust", "cargo/release/message_io", "message-io FramedTcp"),
}

# The load of `rate` is the raw client, so only servers of length-prefixed frames can take it.
FRAMED = ("raw", "ours", "ours-coroutine", "tokio-loop", "mio-loop", "tokio-codec", "asio")

CC = "gcc -O3 -march=native -Wall -Wextra -pthread"
CXX = "g++ -std=c++17 -O3 -march=native -Wall -Wextra -pthread"

# Run in the build folder; {src} is this folder.
BUILDS = {
    "raw": f"{CC} {{src}}/c/raw.c {{src}}/c/raw_server.c -o raw",
    "zeromq": f"{CC} {{src}}/c/zeromq.c -o zeromq -lzmq",
    "nng": f"{CC} {{src}}/c/nng.c -o nng -lnng",
    "asio": f"{CXX} -DASIO_STANDALONE {{src}}/cpp/asio.cpp -o asio",
    "beast": f"{CXX} {{src}}/cpp/beast.cpp -o beast",
    "grpc": "mkdir -p gen && protoc -I {src}/proto --cpp_out=gen --grpc_out=gen "
    "--plugin=protoc-gen-grpc=$(command -v grpc_cpp_plugin) {src}/proto/echo.proto && "
    f"{CXX} -Igen {{src}}/cpp/grpc.cpp gen/echo.pb.cc gen/echo.grpc.pb.cc -o grpc "
    "$(pkg-config --cflags --libs grpc++ protobuf)",
    "rust": "RUSTFLAGS='-C target-cpu=native' CARGO_TARGET_DIR=$PWD/cargo "
    "cargo build --release --manifest-path {src}/rust/Cargo.toml",
}

# Versions of what a build uses: Debian packages, or crates of the lock file.
PACKAGES = ("libasio-dev", "libboost-dev", "libzmq3-dev", "libnng-dev", "libgrpc++-dev")
CRATES = ("tokio", "mio", "tokio-util", "tokio-tungstenite", "tonic", "quinn", "message-io")

# Cores of (server, client). The scheduler's choice moves some figures several times.
PLACEMENTS = {"same": (0, 0), "apart": (0, 1), "free": None}

Workload = namedtuple("Workload", "group kind size conns window")


def knobs(name, w, placement):
    """Environment that makes the ceiling one."""
    if name != "raw":
        return {}
    if w.kind == "stream" and w.size < 512:
        # what is packed stays in the first-level cache until it is copied
        return {"RAW_WRITE": str(32 * 1024)}
    if w.kind == "echo" and placement == "same" and w.size * w.window > 2**20:
        # a window of large messages stays in the cache; on two cores it would starve them
        return {"RAW_SEND": str(128 * 1024)}
    return {}


def label(w):
    size = f"{w.size} B" if w.size < 1024 else f"{w.size // 1024} KiB"
    return {
        "stream": f"one-way stream, {size}",
        "echo": f"echo, {size}, " + (f"{w.conns} connections, " if w.conns > 1 else "") + f"window {w.window}",
        "fanout": f"broadcast to {w.conns} sessions, {size}, {w.window} under way",
        "connect": "connect, one echo, close",
        "idle": f"{w.conns} idle connections",
        "rate": f"{w.window} messages/s on a schedule, {size}, {w.conns} connections",
    }[w.kind]


def workloads(mode):
    """The measurements of a mode: quick, default or full."""
    def of(group, kind, sizes, conns, window):
        return [Workload(group, kind, s, conns, window) for s in sizes]

    sizes = {"quick": (64, 8192), "default": (64, 1024, 8192), "full": (64, 256, 1024, 8192, 65536)}[mode]
    w = of("stream", "stream", sizes, 1, 0)
    w += of("pipeline", "echo", sizes, 1, 256)
    if mode != "quick":
        w += of("pipeline", "echo", sizes, 1, 16)
    w += of("ping", "echo", (64,) if mode != "full" else (64, 1024, 65536), 1, 1)
    w += of("many", "echo", (64,) if mode != "full" else (64, 1024), 50, 1)
    w += of("many", "echo", (64,) if mode != "full" else (64, 1024), 50, 16)
    if mode != "quick":
        w += of("many", "echo", (64,), 1000, 1)
        w += of("many", "echo", (64,), 1000, 16)
    w += of("fanout", "fanout", (64,) if mode != "full" else (64, 1024), 100, 16)
    w += of("rate", "rate", (64,), 50, 20000)
    if mode == "full":
        w += of("rate", "rate", (64,), 50, 100000)
    w += of("connect", "connect", (64,), 1, 1)
    w += of("idle", "idle", (64,), 1000 if mode == "quick" else 10000, 1)
    return w
