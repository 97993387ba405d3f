"""Hostile traffic that multiplies masks."""
import rulesets
from peers import replay
from traffic import Captures
from workload import Point, Required, workload

HONEST_FLOWS = 10_000
FRAMES = 131_072  # in a capture: enough for each pattern from 10 % on, and few enough for every pool
SECONDS = 3.0
KINDS = {"bits": rulesets.bit_flip_frame, "random": rulesets.random_frame}


def frames(kind, percent):
    """Honest flows in turn, and crafted packets evenly among them."""
    debt, crafted, honest = 0.0, 0, 0
    for _ in range(FRAMES):
        debt += percent / 100
        if debt >= 1:
            debt -= 1
            yield KINDS[kind](crafted)
            crafted += 1
        else:
            yield rulesets.honest_frame(honest % HONEST_FLOWS)
            honest += 1


def one_rate(make, kind, percent):
    """Honest packets per second: those that leave the switch, as all crafted ones are dropped by its rules."""
    capture = Captures.get(f"attack-{kind}-{percent}", lambda: frames(kind, percent))
    with make(capture, FRAMES, rulesets.attacked_rules()) as switch:
        replay.settle(switch, 20.0)
        return replay.rate(switch, SECONDS) | {"datapath_flows": switch.datapath_flows()} | switch.note


def side(make, kind, percent):
    """Without attack, with it, and without again: what else happens on the machine changes in minutes, a measurement takes seconds."""
    def measure():
        before = one_rate(make, kind, 0)
        hit = one_rate(make, kind, percent)
        after = one_rate(make, kind, 0)
        calm_cycles = (before["cycles"] + after["cycles"]) / 2
        # Cycles of the polling thread, so that what else runs on its core does not count.
        kept = calm_cycles / (hit["cycles"] * (1 - percent / 100))
        return hit | {"kept_percent": 100 * kept, "calm_cycles": calm_cycles,
                      "calm_spread_percent": 100 * abs(before["cycles"] - after["cycles"]) / calm_cycles}

    return measure


@workload("attack")
def attack(options):
    """What honest flows keep of their rate while part of the packets is crafted to multiply masks (CVE-2019-25076).

    Three rules allow UDP by destination port, by source address and by source port; the rest is dropped. 10,000 honest flows use the
    allowed port. "bits": crafted packets differ from each allowed value in one bit, 8,192 patterns; "random": all three fields at
    random. Captures of 131,072 frames are replayed as in `forward`. A replay takes as many crafted packets as its share says, however
    slow the switch is, so the fair measure is: honest packets forwarded per second, by (honest share of the packets x packets forwarded
    per second with no attack), measured without attack, with it, and without again in every round. 100 % means that a crafted packet
    costs no more than an honest one. Cycles are per honest packet; calm_spread is how far apart the two measurements without attack
    are: a kept share is no better known than that."""
    points = []
    for kind in options.pick(("bits", "random"), ("bits",)):
        for percent in options.pick((0.1, 1, 10, 50), (10,)):
            required = (Required("kept_percent", ">=", 90),) if percent == 10 else ()
            sides = {"ours": side(replay.ours, kind, percent), "openvswitch": side(replay.open_vswitch, kind, percent)}
            points.append(Point(f"attack/{kind}/{percent}", "kept_percent", "% kept", sides, required))
    return points
