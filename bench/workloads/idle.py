"""A switch with nothing to do."""
import time

import machine
from lab import Lab
from peers import network
from peers.network import KERNEL, OURS, OVS, OVS_POLLING
from workload import Point, Required, workload

PORTS = 64
SECONDS = 10


def cpu(kind):
    def measure():
        with Lab() as lab:
            host, other = lab.host("sw"), lab.host("o")
            for end in (host, other):
                for which in ("all", "default"):
                    end.run("sysctl", "-qw", f"net.ipv6.conf.{which}.disable_ipv6=1")
            switch = network.make_switch(lab, host, kind)
            switch.add_bridge("br0", secure=False)
            names = [f"p{i}" for i in range(PORTS)]
            for name in names:
                lab.wire(other, f"e{name}", host, name)
            network.add_ports(switch, kind, names)
            time.sleep(2)
            start, used = time.monotonic(), machine.cpu_seconds(switch.pid)
            time.sleep(SECONDS)
            return {"percent": 100 * (machine.cpu_seconds(switch.pid) - used) / (time.monotonic() - start)}

    return measure


def wake_up(kind, count):
    def measure():
        with Lab() as lab:
            with network.bridged(lab, kind).asker() as ask:
                return network.percentiles(ask(count, gap_us=20_000))

    return measure


@workload("idle")
def idle(options):
    """CPU time with 64 veth ports up and no traffic, and how long a packet takes that comes after a pause.

    "cpu": percent of one core over 10 s, all threads of the daemon. "wake-up": `rr` with 20 ms before each request, so that whatever
    sleeps is asleep; the median in microseconds for request and answer, two passes of the switch and two wake-ups of processes
    ("kernel" shows what those cost)."""
    count = options.pick(500, 100)
    woken = {"ours": OURS, "openvswitch": OVS, "openvswitch-polling": OVS_POLLING, "kernel": KERNEL}
    return [Point("idle/cpu", "percent", "% of a core", {"ours": cpu(OURS), "openvswitch": cpu(OVS)}, (Required("percent", "<=", 1),)),
            Point("idle/wake-up", "p50", "us p50", {name: wake_up(kind, count) for name, kind in woken.items()}, better="lower")]
