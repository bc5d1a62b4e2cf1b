"""A client and a server of the session service in Python, with grpcio.

usage: grpc_peer.py client PORT | watch PORT | large PORT SIZE | server
"""

import os
import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

here = os.path.dirname(os.path.abspath(__file__))
proto = os.path.join(here, "..", "..", "..", "..", "proto")
sys.path.insert(0, proto)
session_pb2, session_grpc = grpc.protos_and_services("network_system/v1/session.proto")
Message = session_pb2.Message
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def messages():
    for size in (0, 1, 1000, 100_000):
        yield Message(binary=bytes(i * 7 % 256 for i in range(size)))
        yield Message(text="\u00e4" * size)


def client(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "network_system.v1.SessionService"):
        status = health.Check(health_pb2.HealthCheckRequest(service=service)).status
        assert status == health_pb2.HealthCheckResponse.SERVING, status
    names = set(ReflectionNames(channel))
    assert {"network_system.v1.SessionService", "grpc.health.v1.Health"} <= names, names
    stub = session_grpc.SessionServiceStub(channel)
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        sent = list(messages())
        got = list(stub.Connect(iter(sent), compression=compression))
        assert got == sent, [len(m.binary) + len(m.text) for m in got]
    print("done", flush=True)


def ReflectionNames(channel):
    return ProtoReflectionDescriptorDatabase(channel).get_services()


def watch(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for answer in health.Watch(health_pb2.HealthCheckRequest(service="")):
        print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status), flush=True)
        if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
            return


def large(channel, size):
    stub = session_grpc.SessionServiceStub(channel)
    try:
        got = list(stub.Connect(iter([Message(binary=bytes(size))])))
        print("got", len(got), flush=True)
    except grpc.RpcError as error:
        print(error.code().name, flush=True)


class Echo(session_grpc.SessionServiceServicer):
    def Connect(self, incoming, context):
        for message in incoming:
            if message.text == "metadata":
                yield Message(text=str(dict(context.invocation_metadata()).get("user-agent", "")))
            elif message.text == "fail":
                context.abort(grpc.StatusCode.UNAVAILABLE, "as asked")
            elif message.text == "end":
                return
            else:
                yield message


def server():
    it = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=UNLIMITED)
    session_grpc.add_SessionServiceServicer_to_server(Echo(), it)
    print(it.add_insecure_port("127.0.0.1:0"), flush=True)
    it.start()
    # until nobody wants it any more
    sys.stdin.read()
    it.stop(None)


role, *rest = sys.argv[1:]
if role == "server":
    server()
else:
    with grpc.insecure_channel(f"127.0.0.1:{rest[0]}", options=UNLIMITED) as channel:
        {"client": client, "watch": watch, "large": large}[role](channel, *map(int, rest[1:]))
