"""Speaks WebSocket with our servers and clients by the library `websockets`.

usage: websocket_peer.py client URL deflate|plain
       websocket_peer.py server deflate|plain      prints its port, and serves until it is killed
"""

import asyncio
import sys

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

MESSAGES = [
    "",
    b"",
    "text",
    b"\x00\xff",
    "äöü €𝄞",
    "a" * 125,
    "a" * 126,
    b"b" * 65535,
    b"b" * 65536,
    "words " * 50_000,
    bytes(range(256)) * 4000,
]


def options(compress):
    return {"compression": "deflate" if compress else None, "max_size": 1 << 24}


async def client(url, compress):
    async with connect(url, subprotocols=["v2", "v1"], **options(compress)) as peer:
        names = [extension.name for extension in peer.protocol.extensions]
        assert names == (["permessage-deflate"] if compress else []), names
        assert peer.subprotocol == "v1", peer.subprotocol
        for message in MESSAGES:
            await peer.send(message)
        for message in MESSAGES:
            back = await peer.recv()
            assert type(back) is type(message) and back == message, (message[:20], back[:20])
        # in parts
        await peer.send(["in ", "", "parts"])
        assert await peer.recv() == "in parts"
        await peer.send([b"\x00", b"\xff" * 70_000])
        assert await peer.recv() == b"\x00" + b"\xff" * 70_000
        await asyncio.wait_for(await peer.ping("are you there"), 10)
        for number in range(2000):
            await peer.send(f"message {number}")
        for number in range(2000):
            assert await peer.recv() == f"message {number}"
        await peer.close(4001, "enough")
        assert peer.close_code == 4001, peer.close_code
    # our server closes
    async with connect(url, **options(compress)) as peer:
        await peer.send("close me")
        try:
            while True:
                await peer.recv()
        except websockets.ConnectionClosed as end:
            assert (end.rcvd.code, end.rcvd.reason) == (4002, "as you like"), end.rcvd
    print("ok")


async def server(compress):
    async def echo(peer):
        async for message in peer:
            if message == "close me":
                await peer.close(4003, "as you like")
                return
            if message == "in parts":
                await peer.send(["in ", "parts"])
                await peer.ping()
                continue
            await peer.send(message)

    async with serve(echo, "127.0.0.1", 0, subprotocols=["v1"], **options(compress)) as listening:
        print(listening.sockets[0].getsockname()[1], flush=True)
        await listening.serve_forever()


if sys.argv[1] == "client":
    asyncio.run(client(sys.argv[2], sys.argv[3] == "deflate"))
else:
    asyncio.run(server(sys.argv[2] == "deflate"))
