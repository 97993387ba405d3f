"""Forwarding in memory."""
import rulesets
from peers import replay
from traffic import Captures
from workload import Point, Required, workload

SECONDS = 2.0


def capture(rule_set, flows):
    return Captures.get(f"{rule_set.name}-{flows}", lambda: (rule_set.frame(n) for n in range(flows)))


def side(make, rule_set, flows):
    def measure():
        with make(capture(rule_set, flows), flows, rule_set.rules) as switch:
            installed = replay.settle(switch)
            return replay.rate(switch, SECONDS) | {"datapath_flows": installed} | switch.note

    return measure


def above_floor(medians):
    """Cycles per packet that are the switch's own."""
    if "floor" not in medians:
        return
    for name in ("ours", "openvswitch"):
        if name in medians:
            medians[name]["above_floor"] = medians[name]["cycles"] - medians["floor"]["cycles"]


@workload("forward")
def forward(options):
    """64-byte frames through the switch in memory, one polling thread alone on its core.

    A capture with that many flows comes in by DPDK's net_pcap for ever (each frame is copied into a buffer) and goes out to net_null.
    The rate is what the out port counts over 2 s once the flows are set up; cycles are those of the time stamp counter, per packet.
    "floor" is dpdk-testpmd in io mode with the same devices and frames: what receiving, copying and sending cost with no switch at all.
    Cycles above it are the switch's."""
    required = (Required("above_floor", "<=", 0.5, "openvswitch"),)
    points = []
    for flows in options.pick((1, 1_000, 10_000, 100_000, 1_000_000), (1, 10_000)):
        for rule_set in rulesets.forwarding():
            points.append(Point(f"forward/{flows}/{rule_set.name}", "mpps", "Mpps", {
                "ours": side(replay.ours, rule_set, flows), "openvswitch": side(replay.open_vswitch, rule_set, flows),
                "floor": lambda r=rule_set, n=flows: replay.floor(capture(r, n), n, SECONDS)}, required, above_floor))
    return points
