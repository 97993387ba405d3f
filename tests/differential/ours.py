"""vswitchd, in a network namespace of its own, driven through its gRPC API."""
import itertools
import pathlib
import shutil
import sys
import time

import lab
import port_kinds
import topology
import wires
from ovs import Refused

ROOT = pathlib.Path(__file__).resolve().parents[2]


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

    def __init__(self, directory, lookup="all", ports="dummy", threads=1):
        self.lookup = lookup  # how packets find their flows: port_kinds.LOOKUPS
        self.port_kinds = dict.fromkeys(topology.DUMMIES, ports) | (wires.MIXED if ports == "mixed" else {})  # wires.NAMES
        self.threads = threads  # forwarding
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
        self.ports = {}  # name: wires.Port
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
        self.far = self.program = None  # where the other ends of wires are, and what holds tags aside there
        # What the kernel would send by itself on the bridges' own devices is no part of the comparison.
        host.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1", "net.ipv6.conf.all.disable_ipv6=1")
        self.log_path = self.directory / "vswitchd.log"
        with open(self.log_path, "ab") as log:
            self.process = host.start(lab.BIN / "vswitchd", "--run-dir", self.directory / "run", "--state-dir", self.directory / "state",
                                      *port_kinds.LOOKUPS[self.lookup], stdout=log, stderr=log)

    def _call(self, method, request, timeout=20):
        try:
            return method(request, timeout=timeout)
        except self.grpc.RpcError as error:
            if self.process.poll() is not None:
                raise RuntimeError(f"vswitchd ended with {self.process.returncode}:\n{self.log()}") from None
            raise Refused(f"{error.code().name}: {error.details()}") from None

    def log(self):
        return self.log_path.read_text(errors="replace")[-4000:]

    def _set(self, setting):
        lab.run(lab.BIN / "vsctl", "--server", f"unix:{self.directory}/run/vswitchd.sock", "set", "open_vswitch", ".", setting)

    def _add_ports(self):
        self._set(f"other_config:forwarding-threads={self.threads}")
        apply, resources = self.config_pb.ApplyRequest(), self.resources_pb
        for bridge in topology.BRIDGES:
            apply.operations.add().create_bridge.bridge.CopyFrom(resources.Bridge(name=bridge, fail_mode=resources.FAIL_MODE_SECURE))
        for plan in topology.PORTS:
            if not plan.peer:
                self.ports[plan.name] = self._port(plan)
            port = self.ports.get(plan.name)
            kind, options = (port.type, port.options) if port else ("patch", {"peer": plan.peer})
            apply.operations.add().create_port.port.CopyFrom(resources.Port(
                name=plan.name, bridge=plan.bridge, type=kind, options=options, ofport_request=plan.number))
        try:
            self._call(self.config.Apply, apply)
        except Refused as error:
            raise port_kinds.MissingKind(error) if port_kinds.is_missing(str(error)) else error
        for port in self.ports.values():
            port.connect()
        for bridge in topology.BRIDGES:
            self.host.run("ip", "link", "set", bridge, "up")
            self.ports[bridge] = wires.LocalPort(bridge, self.host)
        lab.eventually(self._ports_work, "all ports work")
        self._read_back()

    def _port(self, plan):
        kind = self.port_kinds[plan.name]
        if kind == "dummy":
            return wires.DummyPort(plan, self.directory, self._receive_on_dummy)
        if kind == "dpdk":
            for setting in port_kinds.DPDK.settings:
                self._set(setting)
            return wires.DpdkPort(plan, self.host)
        if self.far is None:
            self.far = self.lab.host("f")
            self.far.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1", "net.ipv6.conf.all.disable_ipv6=1")
            self.program = wires.make_program(self.directory)
        return wires.WIRED[kind](plan, self.lab, self.host, self.far, self.program)

    def _ports_work(self):
        states = [self._call(self.config.GetPort, self.config_pb.GetPortRequest(name=name)).state for name in self.port_kinds]
        return all(state.carrier and not state.error for state in states)

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

    def _receive_on_dummy(self, port, frames):
        self._call(self.datapath.ReceiveOnDummy, self.datapath_pb.ReceiveOnDummyRequest(port=port, frames=frames))

    def arrives(self, port, frame):
        """What the switch gets of a frame that is sent to it, None if nothing."""
        return self.ports[port].arrives(frame)

    def visible(self, sent):
        """What would be seen if the switch sent this, by port."""
        seen = {name: [frame for frame in frames if self.ports[name].leaves(frame)] for name, frames in sent.items()}
        return {name: frames for name, frames in seen.items() if frames}

    def receive(self, port, frame, expected):
        """As the oracle's. `expected` is what will be seen if all is well: the kernel may pass on a moment later what left by a
        device."""
        return self.receive_all([wires.Message(port, (frame,))], expected)

    def receive_all(self, messages, expected):
        """Lets messages come in, with no pause, and returns what went out, when all of them are accounted for: {port: [frames]}."""
        before = self._books()[0]
        arriving = 0
        for port, batch in itertools.groupby(messages, lambda message: message.port):
            arriving += self.ports[port].inject(list(batch))
        end = time.monotonic() + 5
        while True:
            received, balanced, rows = self._books()
            if received - before >= arriving and balanced:
                break
            if time.monotonic() > end:
                raise Refused(f"vswitch took {received - before} of {arriving} packets, or its books do not balance: {rows}")
        sent = {name: port.tail.frames() for name, port in self.ports.items()}
        end = time.monotonic() + 0.5
        for name, port in self.ports.items():
            while len(sent[name]) < len(expected.get(name, ())) and time.monotonic() < end:
                time.sleep(0.001)
                sent[name] += port.tail.frames()
        return {name: frames for name, frames in sent.items() if frames}

    def _books(self):
        """(packets received by ports, whether all is accounted for and nothing waits, the rows)."""
        rows = self._call(self.datapath.ListBalances, self.datapath_pb.ListBalancesRequest()).balances
        balanced = all(row.queued == 0 and row.received + row.injected + row.copies == row.sent + row.consumed + row.dropped
                       for row in rows)
        return sum(row.received for row in rows), balanced, rows

    def close(self):
        for port in self.ports.values():
            port.close()
        self.lab.close()
