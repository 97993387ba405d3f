#!/usr/bin/python3
"""A client made from the proto files does what the command-line programs do.

Usage: client_test.py BUILD_BIN_DIR PROTO_DIR

Starts its own vswitchd in a directory of its own, with dummy ports only, so nothing of the host is touched but one TAP
device per bridge: run it in a network namespace of its own (tests/e2e does).
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

BIN = pathlib.Path(sys.argv[1])
PROTO = pathlib.Path(sys.argv[2])
WORK = tempfile.TemporaryDirectory(prefix="vswitch-client-")
GEN = pathlib.Path(WORK.name) / "gen"
GEN.mkdir()
# Debian's grpc_tools is older than `optional` fields; protoc and its plugin (protobuf-compiler-grpc) are not.
subprocess.run(["protoc", f"-I{PROTO}", f"--python_out={GEN}", f"--grpc_out={GEN}",
                "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin", *map(str, sorted((PROTO / "vswitch/v1").glob("*.proto")))], check=True)
sys.path.insert(0, str(GEN))

import grpc  # noqa: E402
from vswitch.v1 import config_service_pb2 as config  # noqa: E402
from vswitch.v1 import config_service_pb2_grpc as config_grpc  # noqa: E402
from vswitch.v1 import datapath_service_pb2 as datapath  # noqa: E402
from vswitch.v1 import datapath_service_pb2_grpc as datapath_grpc  # noqa: E402
from vswitch.v1 import error_pb2  # noqa: E402
from vswitch.v1 import packet_service_pb2 as packet  # noqa: E402
from vswitch.v1 import packet_service_pb2_grpc as packet_grpc  # noqa: E402
from vswitch.v1 import resources_pb2 as res  # noqa: E402
from vswitch.v1 import rule_pb2 as rule  # noqa: E402
from vswitch.v1 import rule_service_pb2 as rules  # noqa: E402
from vswitch.v1 import rule_service_pb2_grpc as rules_grpc  # noqa: E402

SOCKET = f"{WORK.name}/vswitchd.sock"
FRAME = bytes.fromhex("ffffffffffff0a0000000001080600010800060400010a00000000010a0000010000000000000a000002")
T = 10


def error_details(error):
    for key, value in error.trailing_metadata():
        if key == "vswitch-error-bin":
            return error_pb2.ErrorDetails.FromString(value).details
    return []


class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = subprocess.Popen([BIN / "vswitchd", "--run-dir", WORK.name, "--state-dir", f"{WORK.name}/state"])
        cls.channel = grpc.insecure_channel(f"unix:{SOCKET}")
        grpc.channel_ready_future(cls.channel).result(timeout=T)
        cls.config = config_grpc.ConfigServiceStub(cls.channel)
        cls.rules = rules_grpc.RuleServiceStub(cls.channel)
        cls.packets = packet_grpc.PacketServiceStub(cls.channel)
        cls.datapath = datapath_grpc.DatapathServiceStub(cls.channel)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        cls.daemon.terminate()
        assert cls.daemon.wait(timeout=T) == 0
        WORK.cleanup()

    def setUp(self):
        port = lambda name, number: config.Operation(create_port=config.CreatePortRequest(port=res.Port(
            name=name, bridge="cbr0", type="dummy", ofport_request=number)))
        self.config.Apply(config.ApplyRequest(operations=[
            config.Operation(create_bridge=config.CreateBridgeRequest(
                bridge=res.Bridge(name="cbr0", fail_mode=res.FAIL_MODE_SECURE))), port("d1", 1), port("d2", 2)]), timeout=T)

    def tearDown(self):
        self.config.DeleteBridge(config.DeleteBridgeRequest(name="cbr0"), timeout=T)

    def all_rules(self):
        request = rules.ListRulesRequest(bridge="cbr0", view=rules.RULE_VIEW_FULL, omit_statistics=True)
        return [r for batch in self.rules.ListRules(request, timeout=T) for r in batch.rules]

    def add(self, *mods):
        return self.rules.ModifyRules(rules.ModifyRulesRequest(bridge="cbr0", mods=mods), timeout=T)

    def test_typed_and_text_rules_are_the_same(self):
        fields = [rule.FieldMatch(field="eth_type", value=rule.FieldValue(number=0x0800)),
                  rule.FieldMatch(field="nw_dst", value=rule.FieldValue(data=bytes([10, 0, 0, 1])))]
        action = rule.Action(output=rule.OutputAction(port=2))
        self.add(rule.RuleMod(rule=rule.Rule(priority=5, match=rule.Match(fields=fields), actions=[action])))
        typed = self.all_rules()
        self.add(rule.RuleMod(text="priority=5,ip,nw_dst=10.0.0.1,actions=output:d2"))
        text = self.all_rules()
        self.assertEqual(len(typed), 1)
        self.assertEqual([r.text for r in typed], [r.text for r in text])

    def test_the_cli_sees_what_the_client_did(self):
        self.add(rule.RuleMod(text="arp,actions=output:2"))
        out = subprocess.run([BIN / "ofctl", "--server", f"unix:{SOCKET}", "--no-stats", "dump-flows", "cbr0"],
                             check=True, capture_output=True, text=True).stdout
        self.assertEqual(out.strip(), "arp actions=output:2")

    def test_loading_is_all_or_nothing(self):
        chunks = [rules.LoadRulesRequest(bridge="cbr0", text=b"in_port=1,actions=out"),
                  rules.LoadRulesRequest(text=b"put:2\nactions=fly\n")]
        with self.assertRaises(grpc.RpcError) as caught:
            self.rules.LoadRules(iter(chunks), timeout=T)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertEqual([d.line for d in error_details(caught.exception)], [2])
        self.assertEqual(self.all_rules(), [])

    def test_errors_have_codes(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.config.GetPort(config.GetPortRequest(name="nothing"), timeout=T)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
        with self.assertRaises(grpc.RpcError) as caught:
            self.config.CreateBridge(config.CreateBridgeRequest(bridge=res.Bridge(name="cbr0")), timeout=T)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.ALREADY_EXISTS)

    def test_a_dry_run_changes_nothing(self):
        before = self.config.GetVersion(config.GetVersionRequest(), timeout=T).revision
        self.config.CreatePort(config.CreatePortRequest(
            port=res.Port(name="d3", bridge="cbr0", type="dummy"), validate_only=True), timeout=T)
        self.assertEqual(self.config.GetVersion(config.GetVersionRequest(), timeout=T).revision, before)

    def test_trace(self):
        self.add(rule.RuleMod(text="arp,actions=output:2"))
        reply = self.rules.Trace(rules.TraceRequest(bridge="cbr0", flow=rule.Match(text="in_port=1"), packet=FRAME),
                                 timeout=T)
        self.assertEqual(len(reply.sections), 1)
        self.assertIn("Datapath actions:", reply.text)
        self.assertEqual(reply.sections[0].drop_reason, "")

    def test_packets_in_and_out(self):
        self.add(rule.RuleMod(text="arp,actions=controller"))
        requests = [packet.PacketIORequest(subscribe=packet.Subscription(bridge="cbr0"))]
        import queue
        outgoing = queue.Queue()
        outgoing.put(requests[0])
        stream = self.packets.PacketIO(iter(outgoing.get, None), timeout=T)
        self.assertTrue(next(stream).HasField("subscribed"))
        self.datapath.ReceiveOnDummy(datapath.ReceiveOnDummyRequest(port="d1", frames=[FRAME]), timeout=T)
        received = next(stream).packet_in
        self.assertEqual(received.packet, FRAME)
        self.assertEqual(received.in_port, 1)
        outgoing.put(None)
        stream.cancel()

    def test_watch(self):
        stream = self.config.Watch(config.WatchRequest(bridge="cbr0"), timeout=T)
        self.assertEqual(next(stream).kind, config.CHANGE_KIND_STARTED)
        self.add(rule.RuleMod(text="udp,actions=drop"))
        event = next(e for e in stream if e.kind == config.CHANGE_KIND_RULE_ADDED)
        self.assertIn("udp", event.rule.text)
        stream.cancel()

    def test_pages(self):
        names, token = [], ""
        while True:
            reply = self.config.ListPorts(config.ListPortsRequest(bridge="cbr0", page_size=2, page_token=token), timeout=T)
            names += [p.name for p in reply.ports]
            token = reply.next_page_token
            if not token:
                break
        self.assertEqual(names, ["ports/cbr0", "ports/d1", "ports/d2"])


if __name__ == "__main__":
    os.environ.pop("http_proxy", None)
    unittest.main(argv=[sys.argv[0]])
