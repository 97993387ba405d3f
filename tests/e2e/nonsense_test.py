#!/usr/bin/python3
"""Every RPC answers nonsense with a precise status, and what it refuses changes nothing.

Usage: nonsense_test.py BUILD_BIN_DIR PROTO_DIR [ROUNDS [SEED]]

Fills the requests of every method with values that are wrong, missing, huge, odd or by chance right. Allowed are the statuses that
name a fault of the caller; the text must be one line, and after a refusal the configuration must be what it was. Starts its own
vswitchd as client_test.py does; run it in a network namespace of its own.
"""
import importlib
import pathlib
import random
import subprocess
import sys
import tempfile

BIN, PROTO = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 60
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else 1
WORK = tempfile.TemporaryDirectory(prefix="vswitch-nonsense-")
GEN = pathlib.Path(WORK.name) / "gen"
GEN.mkdir()
FILES = sorted((PROTO / "vswitch/v1").glob("*.proto"))
subprocess.run(["protoc", f"-I{PROTO}", f"--python_out={GEN}", f"--grpc_out={GEN}",
                "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin", *map(str, FILES)], check=True)
sys.path.insert(0, str(GEN))

import grpc  # noqa: E402
from google.protobuf.descriptor import FieldDescriptor  # noqa: E402

config = importlib.import_module("vswitch.v1.config_service_pb2")
config_grpc = importlib.import_module("vswitch.v1.config_service_pb2_grpc")
SERVICES = [importlib.import_module(f"vswitch.v1.{file.stem}_pb2") for file in FILES if file.stem.endswith("_service")]

FAULTS_OF_THE_CALLER = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS,
                        grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE,
                        grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.ABORTED}
# Streams that go on until the client has enough.
ENDLESS = {"Watch", "WatchPortStatistics", "PacketIO"}
WORDS = ["", "nbr0", "n1", "bridges/nbr0", "ports/n1", "no such", "a" * 300, "odd\nname", "x/y", "ports/", "\u00fcmlaut", "in_port=1", "tcp,nw_src=10.0.0.1",
         "actions=drop", "in_port=1,actions=output:2", "in_port=-1", "actions=output:", "dummy", "patch", "vxlan", "vxlam", "10.0.0.1",
         "300.1.1.1", "02:00:00:00:00:01", "zz:00", "flow", "key", "remote_ip", "4294967296", "-1", "name", "ofport", "*", ","]
NUMBERS = [0, 1, 2, 3, 10, 64, 255, 256, 4095, 4096, 65279, 65280, 65535, 65536, 16777216, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, -1, -2**31]
LIMITS = {FieldDescriptor.TYPE_INT32: (-2**31, 2**31 - 1), FieldDescriptor.TYPE_SINT32: (-2**31, 2**31 - 1), FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
          FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1), FieldDescriptor.TYPE_INT64: (-2**63, 2**63 - 1), FieldDescriptor.TYPE_SINT64: (-2**63, 2**63 - 1),
          FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1), FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1)}


def value(rng, field):
    if field.type == FieldDescriptor.TYPE_STRING:
        return rng.choice(WORDS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes(rng.randrange(256) for _ in range(rng.choice((0, 1, 6, 13, 14, 60, 300))))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type == FieldDescriptor.TYPE_ENUM:
        return rng.choice([v.number for v in field.enum_type.values] + [99, -1])
    if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return rng.choice((0.0, -1.0, 1e30, float("nan")))
    low, high = LIMITS[field.type]
    return rng.choice([n for n in NUMBERS if low <= n <= high])


def fill(rng, message, depth=0):
    for field in message.DESCRIPTOR.fields:
        if rng.random() < (0.45 if depth == 0 else 0.6) or depth > 5:
            continue
        if field.message_type is None:
            if field.label == FieldDescriptor.LABEL_REPEATED:
                getattr(message, field.name).extend(value(rng, field) for _ in range(rng.randrange(3)))
            else:
                setattr(message, field.name, value(rng, field))
        elif field.message_type.GetOptions().map_entry:
            entry = field.message_type.fields_by_name["value"]
            if entry.message_type is None:
                getattr(message, field.name)[rng.choice(WORDS)] = value(rng, entry)
        elif field.label == FieldDescriptor.LABEL_REPEATED:
            for _ in range(rng.randrange(3)):
                fill(rng, getattr(message, field.name).add(), depth + 1)
        else:
            fill(rng, getattr(message, field.name), depth + 1)
            getattr(message, field.name).SetInParent()
    return message


def call(channel, service, method, request):
    """Makes the call and takes what it gives; raises grpc.RpcError."""
    kind = ("stream" if method.client_streaming else "unary") + "_" + ("stream" if method.server_streaming else "unary")
    reply = importlib.import_module(method.output_type.file.name.replace("/", ".").removesuffix(".proto") + "_pb2")
    rpc = getattr(channel, kind)(f"/{service.full_name}/{method.name}", request_serializer=lambda m: m.SerializeToString(),
                                 response_deserializer=getattr(reply, method.output_type.name).FromString)
    done = rpc(iter([request]) if method.client_streaming else request, timeout=20)
    if method.server_streaming:
        for _ in done:
            if method.name in ENDLESS:
                done.cancel()
                break


def complaint_about(error):
    if error.code() == grpc.StatusCode.CANCELLED:
        return ""
    if error.code() not in FAULTS_OF_THE_CALLER:
        return f"status {error.code()}: {error.details()!r}"
    if not error.details() or "\n" in error.details():
        return f"not one line of text: {error.details()!r}"
    return ""


def try_method(channel, stub, service, method, rng, tally):
    module = importlib.import_module(method.input_type.file.name.replace("/", ".").removesuffix(".proto") + "_pb2")
    for _ in range(ROUNDS):
        request = fill(rng, getattr(module, method.input_type.name)())
        before = settled(stub)
        try:
            call(channel, service, method, request)
            tally["done"] += 1
        except grpc.RpcError as error:
            complaint = complaint_about(error)
            if not complaint and settled(stub) != before:
                complaint = f"refused ({error.details()!r}), but the configuration changed"
            if complaint:
                raise SystemExit(f"{method.full_name}: {complaint}\nrequest: {request}") from None
            tally["refused"] += 1


def settled(stub):
    """The configuration without what moves by itself."""
    got = stub.GetConfiguration(config.GetConfigurationRequest(), timeout=20)
    for port in got.ports:
        for name in ("state", "statistics"):
            if name in port.DESCRIPTOR.fields_by_name:
                port.ClearField(name)
    return got.SerializeToString(deterministic=True)


def set_up(stub):
    """The bridge and ports that some of the words name, if a request has taken them away."""
    operation, here = config.Operation, stub.GetConfiguration(config.GetConfigurationRequest(), timeout=20)
    if any(bridge.name == "bridges/nbr0" for bridge in here.bridges):
        return
    create = operation()
    create.create_bridge.bridge.name = "nbr0"
    port = operation()
    port.create_port.port.name, port.create_port.port.bridge, port.create_port.port.type = "n1", "nbr0", "dummy"
    stub.Apply(config.ApplyRequest(operations=[create, port]), timeout=20)


def main():
    rng, tally = random.Random(SEED), {"done": 0, "refused": 0}
    daemon = subprocess.Popen([BIN / "vswitchd", "--run-dir", WORK.name, "--state-dir", f"{WORK.name}/state", "--log-level", "error"])
    channel = grpc.insecure_channel(f"unix:{WORK.name}/vswitchd.sock")
    try:
        grpc.channel_ready_future(channel).result(timeout=20)
        stub = config_grpc.ConfigServiceStub(channel)
        for module in SERVICES:
            for service in module.DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    set_up(stub)
                    try_method(channel, stub, service, method, rng, tally)
                    if daemon.poll() is not None:
                        raise SystemExit(f"{method.full_name}: vswitchd ended with {daemon.returncode}")
        print(f"{tally['done']} requests carried out, {tally['refused']} refused by name")
        if tally["refused"] < 10 * ROUNDS:
            raise SystemExit("too few were refused to mean anything")
    finally:
        channel.close()
        daemon.terminate()
        status = daemon.wait(timeout=20)
    if status != 0:
        raise SystemExit(f"vswitchd ended with status {status}")


if __name__ == "__main__":
    main()
