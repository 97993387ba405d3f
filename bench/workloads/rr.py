"""Latency."""
import contextlib
import time

import turns
from lab import Lab
from peers import network
from peers.network import KERNEL, OURS, OURS_DAEMON, OURS_XDP, OVS, OVS_POLLING, OVS_XDP, WIRE
from workload import Point, Required, workload

BRIDGED = {"ours": OURS, "ours-no-kernel-path": OURS_DAEMON, "ours-afxdp": OURS_XDP, "openvswitch": OVS,
           "openvswitch-polling": OVS_POLLING, "openvswitch-afxdp": OVS_XDP, "kernel": KERNEL, "wire": WIRE}
OVERLAID = {"ours": OURS, "ours-afxdp": OURS_XDP, "openvswitch": OVS, "openvswitch-afxdp": OVS_XDP, "kernel": KERNEL}
TURNS = 20
MANY = 64  # connections at once


class Exchanges(turns.Side):
    """So many exchanges through a switch in each turn."""

    def __init__(self, pid, ask, connections, count):
        super().__init__(pid)
        self.ask = ask
        self.connections = connections
        self.count = count
        self.times = []

    def spend(self):
        time.sleep(turns.PAUSE)
        self.times += self.ask(self.count)
        time.sleep(turns.PAUSE)  # TCP has acknowledged the last answer by then

    def end(self):
        self.figures = network.percentiles(self.times) | {"per_second": 1e6 * self.connections * len(self.times) / sum(self.times)}


def exchanges(make, kind, connections, count):
    @contextlib.contextmanager
    def start():
        with Lab() as lab:
            switched = make(lab, kind)
            with switched.asker(connections) as ask:
                yield Exchanges(switched.pid, ask, connections, count // TURNS)

    return start


@workload("rr")
def rr(options):
    """Time from a request of one byte to its answer of one byte over TCP, one after the other: p50, p99 and p99.9 in microseconds.

    The namespaces of `tcp`; 50,000 exchanges on one connection. "openvswitch-polling" has its ports on a thread that polls for ever
    (DPDK's net_af_packet), "openvswitch" on its main thread, which sleeps. All sides are up at once and take 20 turns, each of 2,500
    exchanges between two pauses, the switches of the others being stopped meanwhile.

    "64": as many connections at once, each with one request on its way; 200,000 exchanges on all together, 10,000 in a turn. Both ends
    are one thread each, so an answer that has come waits until those before it have been read."""

    def point(name, make, kinds, *required, connections=1, count=options.pick(50_000, 5_000)):
        sides = {side: exchanges(make, kind, connections, count) for side, kind in kinds.items()}
        return Point(name, "p99", "us p99", sides, required, together=lambda starts: turns.measure(starts, TURNS), better="lower")

    many = {"connections": MANY, "count": options.pick(200_000, 20_000)}
    return [point("rr/veth", network.bridged, BRIDGED, Required("p99", "<=", 1, "openvswitch-polling")),
            point("rr/vxlan", network.overlaid, OVERLAID),
            point(f"rr/veth/{MANY}", network.bridged, BRIDGED, **many),
            point(f"rr/vxlan/{MANY}", network.overlaid, OVERLAID, **many)]
