"""Latency."""
from lab import Lab
from peers import network
from peers.network import KERNEL, OURS, OURS_DAEMON, OURS_XDP, OVS, OVS_POLLING, OVS_XDP, WIRE
from workload import Point, Required, workload

BRIDGED = {"ours": OURS, "ours-no-kernel-path": OURS_DAEMON, "ours-afxdp": OURS_XDP, "openvswitch": OVS,
           "openvswitch-polling": OVS_POLLING, "openvswitch-afxdp": OVS_XDP, "kernel": KERNEL, "wire": WIRE}
OVERLAID = {"ours": OURS, "ours-afxdp": OURS_XDP, "openvswitch": OVS, "openvswitch-afxdp": OVS_XDP, "kernel": KERNEL}


def exchanges(make, kind, count, gap_us=0):
    def measure():
        with Lab() as lab:
            return make(lab, kind).request_response(count, gap_us)

    return measure


@workload("rr")
def rr(options):
    """Time from a request of one byte to its answer of one byte over TCP, one after the other: p50, p99 and p99.9 in microseconds.

    The namespaces of `tcp`; 50,000 exchanges on one connection. "openvswitch-polling" has its ports on a thread that polls for ever
    (DPDK's net_af_packet), "openvswitch" on its main thread, which sleeps."""
    count = options.pick(50_000, 5_000)
    return [Point("rr/veth", "p99", "us p99", {name: exchanges(network.bridged, kind, count) for name, kind in BRIDGED.items()},
                  (Required("p99", "<=", 1, "openvswitch-polling"),)),
            Point("rr/vxlan", "p99", "us p99", {name: exchanges(network.overlaid, kind, count) for name, kind in OVERLAID.items()})]
