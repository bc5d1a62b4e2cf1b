// Speaks WebSocket with our servers and clients by the library `ws` of Node.
//
// usage: websocket_peer.js client URL deflate|plain
//        websocket_peer.js server deflate|plain      prints its port, and serves until it is killed
"use strict";
const assert = require("node:assert");
const { once } = require("node:events");
const { WebSocket, WebSocketServer } = require("ws");

const MESSAGES = [
  "",
  Buffer.alloc(0),
  "text",
  Buffer.from([0, 255]),
  "äöü €𝄞",
  "a".repeat(126),
  Buffer.alloc(65535, 1),
  Buffer.alloc(65536, 2),
  "words ".repeat(50000),
  Buffer.alloc(1 << 20, "random"),
];

async function open(url, compress) {
  const peer = new WebSocket(url, ["v2", "v1"], { perMessageDeflate: compress });
  const inbox = [];
  let wake = () => {};
  peer.on("message", (data, binary) => {
    inbox.push(binary ? data : data.toString());
    wake();
  });
  peer.receive = async () => {
    while (inbox.length === 0) await new Promise((resolve) => (wake = resolve));
    return inbox.shift();
  };
  await once(peer, "open");
  return peer;
}

async function client(url, compress) {
  let peer = await open(url, compress);
  assert.strictEqual(peer.protocol, "v1");
  assert.strictEqual(peer.extensions, compress ? "permessage-deflate" : "");
  for (const message of MESSAGES) peer.send(message);
  for (const message of MESSAGES) assert.deepStrictEqual(await peer.receive(), message);
  // in parts
  peer.send("in ", { fin: false });
  peer.send("", { fin: false });
  peer.send("parts", { fin: true });
  assert.strictEqual(await peer.receive(), "in parts");
  peer.ping("are you there");
  const [data] = await once(peer, "pong");
  assert.strictEqual(data.toString(), "are you there");
  for (let number = 0; number < 2000; number++) peer.send(`message ${number}`);
  for (let number = 0; number < 2000; number++)
    assert.strictEqual(await peer.receive(), `message ${number}`);
  peer.close(4001, "enough");
  const [code] = await once(peer, "close");
  assert.strictEqual(code, 4001);
  // our server closes
  peer = await open(url, compress);
  peer.send("close me");
  const [ended, reason] = await once(peer, "close");
  assert.deepStrictEqual([ended, reason.toString()], [4002, "as you like"]);
  console.log("ok");
}

function server(compress) {
  const options = {
    host: "127.0.0.1",
    port: 0,
    perMessageDeflate: compress && { threshold: 0 },
    handleProtocols: (offered) => (offered.has("v1") ? "v1" : false),
  };
  const listening = new WebSocketServer(options, () => console.log(listening.address().port));
  listening.on("connection", (peer) => {
    peer.on("message", (data, binary) => {
      const text = binary ? "" : data.toString();
      if (text === "close me") return peer.close(4003, "as you like");
      if (text === "in parts") {
        peer.send("in ", { fin: false });
        peer.ping();
        return peer.send("parts", { fin: true });
      }
      peer.send(data, { binary });
    });
  });
}

if (process.argv[2] === "client") client(process.argv[3], process.argv[4] === "deflate");
else server(process.argv[3] === "deflate");
