"""vswitchd, in a network namespace of its own, driven through its gRPC API."""
import pathlib
import shutil
import sys
import time

import pcap
import topology
from ovs import Refused

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "e2e"))

import lab  # noqa: E402
import local_tap  # noqa: E402


def generate(directory):
    """Makes Python modules of proto/ in `directory` and puts it on the path."""
    directory.mkdir(parents=True)
    # Debian's grpc_tools is too old for `optional` in proto3; its protoc is not.
    files = sorted((ROOT / "proto").glob("vswitch/v1/*.proto"))
    lab.run("protoc", f"-I{ROOT / 'proto'}", f"--plugin=protoc-gen-grpc={shutil.which('grpc_python_plugin')}", f"--python_out={directory}",
            f"--grpc_out={directory}", *files)
    sys.path.insert(0, str(directory))


class Vswitch:
    name = "vswitch"

    def __init__(self, directory, kind):
        self.kind = kind  # how packets are looked up: port_kinds.py
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True)
        generate(self.directory / "python")
        import grpc
        from vswitch.v1 import (config_service_pb2, config_service_pb2_grpc, datapath_service_pb2, datapath_service_pb2_grpc,
                                resources_pb2, rule_service_pb2, rule_service_pb2_grpc)

        self.grpc = grpc
        self.config_pb, self.datapath_pb, self.rule_pb = config_service_pb2, datapath_service_pb2, rule_service_pb2
        self.resources_pb = resources_pb2
        self.lab = lab.Lab()
        self.settings = {}
        self.expected = {}
        try:
            self._start()
            lab.eventually((self.directory / "run" / "vswitchd.sock").exists, lambda: f"vswitchd serves; its log:\n{self.log()}")
            channel = grpc.insecure_channel(f"unix:{self.directory}/run/vswitchd.sock", options=(("grpc.max_receive_message_length", -1),))
            grpc.channel_ready_future(channel).result(timeout=10)
            self.config = config_service_pb2_grpc.ConfigServiceStub(channel)
            self.datapath = datapath_service_pb2_grpc.DatapathServiceStub(channel)
            self.rules = rule_service_pb2_grpc.RuleServiceStub(channel)
            self._add_ports()
        except BaseException:
            self.close()
            raise

    def _start(self):
        self.host = host = self.lab.host("d")
        # What the kernel would send by itself on the bridges' own devices is no part of the comparison.
        host.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1", "net.ipv6.conf.all.disable_ipv6=1")
        self.log_path = self.directory / "vswitchd.log"
        with open(self.log_path, "ab") as log:
            self.process = host.start(lab.BIN / "vswitchd", "--run-dir", self.directory / "run", "--state-dir", self.directory / "state", *self.kind.daemon,
                                      stdout=log, stderr=log)

    def _call(self, method, request, timeout=20):
        try:
            return method(request, timeout=timeout)
        except self.grpc.RpcError as error:
            if self.process.poll() is not None:
                raise RuntimeError(f"vswitchd ended with {self.process.returncode}:\n{self.log()}") from None
            raise Refused(f"{error.code().name}: {error.details()}") from None

    def log(self):
        return self.log_path.read_text(errors="replace")[-4000:]

    def _capture(self, port):
        return self.directory / f"{port}.pcap"

    def _add_ports(self):
        apply, resources = self.config_pb.ApplyRequest(), self.resources_pb
        for bridge in topology.BRIDGES:
            apply.operations.add().create_bridge.bridge.CopyFrom(resources.Bridge(name=bridge, fail_mode=resources.FAIL_MODE_SECURE))
        for port in topology.PORTS:
            options = {"peer": port.peer} if port.peer else {"tx_pcap": str(self._capture(port.name))}
            apply.operations.add().create_port.port.CopyFrom(resources.Port(
                name=port.name, bridge=port.bridge, type="patch" if port.peer else "dummy", options=options, ofport_request=port.number))
        self._call(self.config.Apply, apply)
        self.tails = {name: pcap.Tail(self._capture(name)) for name in topology.DUMMIES}
        for bridge in topology.BRIDGES:
            self.host.run("ip", "link", "set", bridge, "up")
            self.tails[bridge] = local_tap.DeviceTail(self.host.namespace, bridge)
        self._read_back()

    def _read_back(self):
        wrong = []
        for port in topology.PORTS:
            got = self._call(self.config.GetPort, self.config_pb.GetPortRequest(name=port.name))
            if got.ofport != port.number or got.state.error:
                wrong.append(f"{port.name}: ofport {got.ofport}, error \"{got.state.error}\"")
        if wrong:
            raise RuntimeError("ports are not as asked for: " + "; ".join(wrong))

    MODES = {"": 0, "access": 1, "trunk": 2, "native-tagged": 3, "native-untagged": 4}

    def configure(self, settings):
        apply = self.config_pb.ApplyRequest()
        for name, wanted in settings.items():
            if wanted == self.settings.get(name, topology.PortSettings()):
                continue
            update = apply.operations.add().update_port
            port = update.port
            port.name = name
            port.vlan.mode, port.vlan.tag, port.vlan.priority_tags = self.MODES[wanted.mode], wanted.tag, wanted.priority_tags
            port.vlan.trunks.extend(wanted.trunks)
            port.protected = wanted.protected
            for flag in wanted.flags:
                setattr(port.flags, flag.replace("-", "_"), True)
            update.update_mask.paths.extend(("vlan", "flags", "protected"))
        if apply.operations:
            self._call(self.config.Apply, apply)
        self.settings = dict(settings)

    def load(self, bridge, rules, openflow):
        request = self.rule_pb.LoadRulesRequest(bridge=bridge, replace=True, text=("\n".join(rules) + "\n").encode())
        self._call(self.rules.LoadRules, iter([request]))

    def forget(self):
        for bridge in topology.BRIDGES:
            self._call(self.rules.FlushMacs, self.rule_pb.FlushMacsRequest(bridge=bridge))

    def forget_flows(self):
        self._call(self.datapath.DeleteDatapathFlows, self.datapath_pb.DeleteDatapathFlowsRequest())

    def trace(self, bridge, port_number, frame):
        request = self.rule_pb.TraceRequest(bridge=bridge, packet=frame, names=True, allow_side_effects=True)
        request.flow.text = f"in_port={port_number}"
        reply = self._call(self.rules.Trace, request)
        return reply.text

    def receive(self, port, frame, expected):
        """As the oracle's. `expected` is what the oracle sent: the kernel may pass on a moment later what left by a device."""
        before = self._books()
        self._call(self.datapath.ReceiveOnDummy, self.datapath_pb.ReceiveOnDummyRequest(port=port, frames=[frame]))
        end = time.monotonic() + 5
        while True:
            now = self._books()
            if now[0] > before[0] and now[1]:
                break
            if time.monotonic() > end:
                raise Refused(f"vswitch did not take a frame that came in by {port}, or its books do not balance: {now[2]}")
        sent = {name: tail.frames() for name, tail in self.tails.items()}
        end = time.monotonic() + 0.5
        for bridge in topology.BRIDGES:
            while len(sent[bridge]) < len(expected.get(bridge, ())) and time.monotonic() < end:
                time.sleep(0.002)
                sent[bridge] += self.tails[bridge].frames()
        return {name: frames for name, frames in sent.items() if frames}

    def _books(self):
        """(frames received by dummy ports, whether all is accounted for and nothing waits, the rows)."""
        rows = self._call(self.datapath.ListBalances, self.datapath_pb.ListBalancesRequest()).balances
        balanced = all(row.queued == 0 and row.received + row.injected + row.copies == row.sent + row.consumed + row.dropped
                       for row in rows)
        return sum(row.received for row in rows), balanced, rows

    def close(self):
        self.lab.close()
