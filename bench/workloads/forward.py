"""Forwarding in memory."""
import rulesets
import turns
from peers import replay
from traffic import Captures
from workload import Point, Required, workload

TURNS = 10


def sides(rule_set, flows):
    def capture():
        return Captures.get(f"{rule_set.name}-{flows}", lambda: (rule_set.frame(n) for n in range(flows)))

    return {"ours": replay.of_switch(replay.ours, capture, flows, rule_set.rules),
            "openvswitch": replay.of_switch(replay.open_vswitch, capture, flows, rule_set.rules),
            "floor": replay.of_no_switch(capture, flows)}


def above_floor(figures):
    """Cycles per packet that are the switch's own."""
    for name in ("ours", "openvswitch"):
        if name in figures and "floor" in figures:
            figures[name]["above_floor"] = figures[name]["cycles"] - figures["floor"]["cycles"]


@workload("forward")
def forward(options):
    """64-byte frames through the switch in memory, one polling thread alone on its core.

    A capture with that many flows comes in by DPDK's net_pcap for ever (each frame is copied into a buffer) and goes out to net_null.
    The rate is what the out port counts over 2 s once the flows are set up; cycles are those of the time stamp counter, per packet.
    "floor" is dpdk-testpmd in io mode with the same devices and frames: what receiving, copying and sending cost with no switch at all.
    Cycles above it are the switch's. All three are up at once and take turns of 0.2 s, the others being stopped meanwhile."""
    required = (Required("above_floor", "<=", 0.5, "openvswitch"),)
    points = []
    for flows in options.pick((1, 1_000, 10_000, 100_000, 1_000_000), (1, 10_000)):
        for rule_set in rulesets.forwarding():
            points.append(Point(f"forward/{flows}/{rule_set.name}", "mpps", "Mpps", sides(rule_set, flows), required, above_floor,
                                together=lambda starts: turns.measure(starts, TURNS)))
    return points
