"""TCP and small packets between namespaces."""
import contextlib
import statistics
import time

import machine
import turns
from lab import Failure, Lab
from peers import network
from peers.network import KERNEL, OURS, OURS_DAEMON, OURS_MIXED, OURS_XDP, OVS, OVS_MIXED, OVS_TSO, OVS_XDP, WIRE
from workload import Point, Required, workload

STREAM_TURNS, STREAM = 3, 2  # how many turns, and seconds each
DATAGRAM_TURNS, DATAGRAMS = 5, 1
BRIDGED = {"ours": OURS, "ours-no-kernel-path": OURS_DAEMON, "ours-afxdp": OURS_XDP, "openvswitch": OVS,
           "openvswitch-tso": OVS_TSO, "openvswitch-afxdp": OVS_XDP, "kernel": KERNEL, "wire": WIRE}
MIXED = {"ours-afxdp": OURS_MIXED, "openvswitch-afxdp": OVS_MIXED}
OVERLAID = {"ours": OURS, "ours-no-kernel-path": OURS_DAEMON, "ours-afxdp": OURS_XDP, "openvswitch": OVS, "openvswitch-afxdp": OVS_XDP, "kernel": KERNEL}


class Average(turns.Side):
    """Something between the two namespaces in each turn; the mean of the turns' figures."""

    def __init__(self, net, measure):
        super().__init__(net.pid)
        self.net = net
        self.measure = measure  # of the net; returns {metric: number}, the same metrics always
        self.turns = []

    def spend(self):
        time.sleep(turns.PAUSE)
        self.turns.append(self.measure(self.net))

    def end(self):
        self.figures = {what: statistics.mean(turn[what] for turn in self.turns) for what in self.turns[0]}


def average(make, kind, measure):
    @contextlib.contextmanager
    def start():
        with Lab() as lab:
            yield Average(make(lab, kind), measure)

    return start


def streams(make, kind, count, reverse=False):
    options = (["-P", count] if count > 1 else []) + (["-R"] if reverse else [])

    def measure(net):
        meter = machine.Meter(net.pid)
        return {"gbps": net.a.iperf(net.b, net.B, seconds=STREAM, options=options) / 1e9} | meter.figures()

    return average(make, kind, measure)


def stream_turns(starts):
    return turns.measure(starts, STREAM_TURNS)


@workload("tcp")
def tcp(options):
    """TCP throughput between two namespaces over veth, through one switch; and over VXLAN to a kernel peer.

    iperf3, received bits per second, one stream or eight at once. All sides are up at once and take three turns of 2 s, the switches of
    the others being stopped meanwhile; the mean counts. "vxlan" goes from the namespace beside the switch in question
    to one beside the kernel's bridge and vxlan device, "vxlan-back" the other way. "mixed" goes from a port of type afxdp to an AF_PACKET
    one. Where a switch cannot pass on large frames (Open
    vSwitch without userspace-tso-enable, AF_XDP), the namespaces send none. "wire" is one veth pair with no switch. Ports are AF_PACKET
    unless the side says afxdp. On few cores, the ends and the switch share them: that is part of what is measured, alike for all."""
    points = []
    for count in options.pick((1, 8), (1,)):
        sides = {name: streams(network.bridged, kind, count) for name, kind in BRIDGED.items()}
        points.append(Point(f"tcp/veth/{count}", "gbps", "Gbit/s", sides,
                            (Required("gbps", ">=", 1.3, "openvswitch-tso"), Required("gbps", ">=", 0.85, "kernel")), together=stream_turns))
        points.append(Point(f"tcp/mixed/{count}", "gbps", "Gbit/s",
                            {name: streams(network.bridged, kind, count) for name, kind in MIXED.items()}, together=stream_turns))
        for name, reverse in (("vxlan", False), ("vxlan-back", True)):
            sides = {side: streams(network.overlaid, kind, count, reverse) for side, kind in OVERLAID.items()}
            points.append(Point(f"tcp/{name}/{count}", "gbps", "Gbit/s", sides,
                                (Required("gbps", ">=", 8, "openvswitch"), Required("gbps", ">=", 0.6, "kernel")), together=stream_turns))
    return points


def datagrams(make, kind, flows):
    def measure(net):
        meter = machine.Meter(net.pid)
        sent, received, seconds = net.small_packets(DATAGRAMS, flows)
        if received == 0:
            raise Failure(f"of {sent} datagrams none arrived")
        return {"kpps": received / seconds / 1e3, "offered_kpps": sent / seconds / 1e3,
                "lost_percent": 100 * (1 - received / sent)} | meter.figures(received)

    return average(make, kind, measure)


def datagram_turns(starts):
    return turns.measure(starts, DATAGRAM_TURNS)


@workload("udp64")
def udp64(options):
    """64-byte frames between the namespaces of `tcp`: what arrives when one thread sends as fast as it can.

    All sides are up at once and send for 1 s in each of five turns, the switches of the others being stopped meanwhile; the mean counts.
    UDP datagrams of 18 bytes from one socket or from 64 in turn, in batches of 64 (sendmmsg), into a socket with 8 MiB of buffer.
    "lost" is the share of what was sent that never arrived. The sender takes a core of its own, so on two cores the switch and the
    receiver share the other. Cycles are those that the switch's threads take, in user space and in system calls, for each packet that
    arrives; "kernel" has no threads that could be asked."""
    sides = {name: kind for name, kind in BRIDGED.items() if name != "openvswitch-tso"}
    points = []
    for flows in options.pick((1, 64), (1,)):
        points.append(Point(f"udp64/veth/{flows}", "kpps", "kpps",
                            {name: datagrams(network.bridged, kind, flows) for name, kind in sides.items()},
                            (Required("kpps", ">=", 2, "openvswitch"), Required("lost_percent", "<=", 1, "kernel", noise=0.5)),
                            together=datagram_turns))
        points.append(Point(f"udp64/vxlan/{flows}", "kpps", "kpps",
                            {name: datagrams(network.overlaid, kind, flows) for name, kind in OVERLAID.items()}, together=datagram_turns))
    return points
