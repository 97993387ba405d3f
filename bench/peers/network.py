"""Namespaces on one switch, or on two over VXLAN, with any of the peers as the switch.

A side is described by a Kind. Where a switch cannot pass on large frames or partial checksums, the namespaces send none, as its manual
asks."""
import contextlib
import dataclasses
import itertools
import json
import pathlib
import select
import subprocess
from typing import Optional

import lab as labs
import machine
from lab import Failure, Lab, eventually
from peers.kernel import KernelBridge
from peers.openvswitch import OpenVSwitch
from peers.ours import Ours
from workload import Skip, percentile

VNI = 100
UNDERLAY = ("192.0.2.1", "192.0.2.2")
PROBE_PORT = 7000
ANSWER_SECONDS = 30


def start_probe(host, *arguments, **options):
    return host.start(labs.BIN.parent / "bench" / "netprobe", *arguments, **({"stdout": subprocess.DEVNULL} | options))


def probe(host, *arguments, timeout=120):
    return json.loads(host.run(labs.BIN.parent / "bench" / "netprobe", *arguments, timeout=timeout).stdout)


@dataclasses.dataclass(frozen=True)
class Kind:
    switch: str  # "ours", "openvswitch", "kernel", or "none": a wire
    port_type: Optional[str] = None  # of the ports to the namespaces; None: the usual one (AF_PACKET)
    usual_to_b: bool = False  # the port to b is of the usual type all the same
    tso: bool = False  # Open vSwitch's userspace-tso-enable
    kernel_path: bool = True  # ours: as users get it by default
    polling: bool = False  # Open vSwitch's polling threads, on DPDK's net_af_packet

    @property
    def large_frames(self):
        return self.switch in ("ours", "kernel", "none") and self.port_type is None or self.tso


OURS, OURS_XDP, OURS_MIXED = Kind("ours"), Kind("ours", "afxdp"), Kind("ours", "afxdp", usual_to_b=True)
OURS_DAEMON = Kind("ours", kernel_path=False)  # every packet by the daemon
OVS, OVS_TSO, OVS_XDP = Kind("openvswitch"), Kind("openvswitch", tso=True), Kind("openvswitch", "afxdp")
OVS_MIXED = Kind("openvswitch", "afxdp", usual_to_b=True)
OVS_POLLING = Kind("openvswitch", polling=True)
KERNEL, WIRE = Kind("kernel"), Kind("none")


# Networks that take turns are up at once, each in namespaces of its own.
numbers = itertools.count()


class Network:
    """Two namespaces that reach each other through the switch: `a` is 10.0.0.1 and `b` is 10.0.0.2."""

    A, B = "10.0.0.1", "10.0.0.2"

    def __init__(self, lab, kind):
        self.lab, self.kind = lab, kind
        self.switch = None
        self.number = next(numbers)
        self.a, self.b = self.host("a"), self.host("b")

    def host(self, name):
        return self.lab.host(f"{name}{self.number}")

    @property
    def pid(self):
        return self.switch.pid if self.switch else None

    def _address(self, mtu=None):
        for number, host in enumerate((self.a, self.b), 1):
            # Announcements of IPv6 would wake idle switches.
            host.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
            host.address("eth0", f"10.0.0.{number}/24", mtu=mtu, mac=f"02:00:00:00:01:0{number}")
            if not self.kind.large_frames:
                send_plain(host, "eth0")

    @contextlib.contextmanager
    def asker(self, connections=1):
        """A function of a count and a gap: the microseconds that each of so many exchanges of one byte over TCP takes, one after the
        other over one connection, with the gap before each. Over several, each has one on its way, and there are no gaps."""
        several = [connections] if connections > 1 else []
        server = start_probe(self.b, "serve", PROBE_PORT, *several)
        eventually(lambda: f":{PROBE_PORT}" in self.b.run("ss", "-ltn").stdout, "the server listens")
        client = start_probe(self.a, "ask", self.B, PROBE_PORT, *several, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        def ask(count, gap_us=0):
            with contextlib.suppress(BrokenPipeError):  # the client says why
                client.stdin.write(f"{count} {gap_us}\n")
                client.stdin.flush()
            # One line for each question, all of it at once.
            if not select.select([client.stdout], [], [], ANSWER_SECONDS)[0]:
                raise Failure(f"{count} exchanges not within {ANSWER_SECONDS} s")
            answer = client.stdout.readline()
            if not answer.endswith("]\n"):
                raise Failure(client.stderr.read().strip() or "the client ended")
            return json.loads(answer)

        try:
            ask(1)  # connected, before anybody is stopped
            yield ask
        finally:
            client.kill()  # it may wait for an answer for ever
            client.communicate()
            server.terminate()
            server.wait(timeout=10)

    def small_packets(self, seconds, flows=1):
        """(sent, received, seconds of sending) of 64-byte frames sent as fast as one thread can."""
        path = pathlib.Path(self.lab.directory) / "sink.json"
        with open(path, "w") as out:
            sink = start_probe(self.b, "sink", PROBE_PORT, 1, stdout=out)
        eventually(lambda: f":{PROBE_PORT}" in self.b.run("ss", "-lun").stdout, "the sink listens")
        sent = probe(self.a, "send", self.B, PROBE_PORT, seconds, flows)
        sink.wait(timeout=30)
        return sent["sent"], json.loads(path.read_text())["received"], sent["seconds"]


def percentiles(times):
    """Of microseconds."""
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {name: percentile(times, share) for name, share in shares.items()} | {"max": max(times)}


def send_plain(host, device):
    """Nothing that the other end of the device would have to cut or to complete leaves by it."""
    host.run("ethtool", "-K", device, "tx", "off", "tso", "off", "gso", "off", check=False)


def add_ports(switch, kind, ports):
    for number, port in enumerate(ports, 1):
        if kind.polling:
            switch.host.run("ip", "link", "set", port, "up")
            switch.add_port("br0", f"d{port}", "type=dpdk", f'options:dpdk-devargs="net_af_packet{number},iface={port}"', ofport=number)
            continue
        try:
            usual = kind.port_type is None or (kind.usual_to_b and number == 2)
            switch.add_port("br0", port, *([] if usual else [f"type={kind.port_type}"]), ofport=number)
        except Failure as failure:
            if "built without" in str(failure):
                raise Skip(str(failure)) from None
            raise


def make_switch(lab, host, kind):
    if kind.switch == "ours":
        switch = Ours(lab, host)
        if kind.port_type and not switch.knows_port_type(kind.port_type):
            raise Skip(f"this build knows no ports of type {kind.port_type}")
        if not kind.kernel_path:
            switch.vsctl("set", "open_vswitch", ".", "other_config:kernel-path=false")
        return switch
    settings = {"userspace-tso-enable": "true"} if kind.tso else {}
    if kind.polling:
        machine.hugepages.need(1 << 30)
    return OpenVSwitch(lab, host, dpdk=kind.polling, settings=settings)


def bridged(lab, kind):
    """Two namespaces on one switch, which forwards by learned addresses."""
    network = Network(lab, kind)
    if kind.switch == "none":
        lab.wire(network.a, "eth0", network.b, "eth0")
    else:
        middle = network.host("sw")
        middle.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        lab.wire(network.a, "eth0", middle, "pa")
        lab.wire(network.b, "eth0", middle, "pb")
        if kind.switch == "kernel":
            network.switch = KernelBridge(middle)
            network.switch.bridge(["pa", "pb"])
        else:
            network.switch = make_switch(lab, middle, kind)
            network.switch.add_bridge("br0", secure=False)
            add_ports(network.switch, kind, ("pa", "pb"))
    network._address()
    network.a.ping(Network.B, count=3)
    return network


def overlaid(lab, kind):
    """Two namespaces on two switches, joined by VXLAN: `kind` beside a, the kernel's bridge and vxlan device beside b."""
    network = Network(lab, kind)
    hosts = [network.host("left"), network.host("right")]
    lab.wire(hosts[0], "u", hosts[1], "u")
    for host, end, address in zip(hosts, (network.a, network.b), UNDERLAY):
        host.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        host.address("u", f"{address}/24")
        lab.wire(end, "eth0", host, "p")
    if not kind.large_frames:
        send_plain(hosts[1], "u")
    KernelBridge(hosts[1]).overlay("p", UNDERLAY[1], UNDERLAY[0], VNI)
    if kind.switch == "kernel":
        network.switch = KernelBridge(hosts[0])
        network.switch.overlay("p", *UNDERLAY, VNI)
    else:
        network.switch = make_switch(lab, hosts[0], kind)
        network.switch.add_bridge("br0")
        add_ports(network.switch, kind, ("p",))
        if kind.switch == "openvswitch":
            underlay_bridge(network.switch, hosts[0])
        network.switch.add_port("br0", "vx0", "type=vxlan", f"options:remote_ip={UNDERLAY[1]}", "options:key=flow", ofport=2)
        network.switch.rules("br0", [f"in_port=1,actions=set_field:{VNI}->tun_id,output:2", f"in_port=2,tun_id={VNI},actions=output:1"])
    network._address(mtu=1450)
    # Open vSwitch loses the first packet while it learns the underlay's neighbour.
    eventually(lambda: network.a.run("ping", "-c1", "-W1", Network.B, check=False).returncode == 0, "the overlay passes packets")
    return network


def underlay_bridge(switch, host):
    """Open vSwitch's tunnels in user space leave by a bridge that has the underlay's device and address."""
    switch.add_bridge("br-phy", secure=False)
    switch.add_port("br-phy", "u")
    host.run("ip", "address", "flush", "dev", "u")
    host.address("br-phy", f"{UNDERLAY[0]}/24")
    host.ping(UNDERLAY[1], count=2)


__all__ = ["Failure", "Lab", "Network", "bridged", "overlaid"]
