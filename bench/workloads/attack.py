"""Hostile traffic that multiplies masks."""
import statistics

import rulesets
import turns
from peers import replay
from traffic import Captures
from workload import Point, Required, workload

HONEST_FLOWS = 10_000
FRAMES = 131_072  # in a capture: enough for each pattern from 10 % on, and few enough for every pool
TURNS = 10  # of each switch
STARTS = 2
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


def switch(make, kind, percent):
    def capture():
        return Captures.get(f"attack-{kind}-{percent}", lambda: frames(kind, percent))

    return replay.of_switch(make, capture, FRAMES, rulesets.attacked_rules(), longest=10.0)


def side(make, kind, percent):
    """Several switches with the attack, as many without, by turns. Each is started anew, as where its memory lies counts, too."""
    honest_share = 1 - percent / 100

    def measure():
        starts = {(share, number): switch(make, kind, share) for number in range(STARTS) for share in (0, percent)}
        outcomes = turns.measure(starts, TURNS)
        for outcome in outcomes.values():
            if isinstance(outcome, Exception):
                raise outcome
        calm, hit = ([outcomes[share, number] for number in range(STARTS)] for share in (0, percent))
        # Cycles of the polling thread, so that what else runs on its core does not count.
        calm_cycles, hit_cycles = (statistics.mean(one["cycles"] for one in those) for those in (calm, hit))
        spread = [100 * (max(cycles) - min(cycles)) / calm_cycles for cycles in ([one["cycles"] for one in those] for those in (calm, hit))]
        return hit[0] | {"mpps": statistics.mean(one["mpps"] for one in hit), "cycles": hit_cycles,
                         "kept_percent": 100 * calm_cycles / (hit_cycles * honest_share), "calm_cycles": calm_cycles,
                         "calm_spread_percent": spread[0], "hit_spread_percent": spread[1]}

    return measure


@workload("attack")
def attack(options):
    """What honest flows keep of their rate while part of the packets is crafted to multiply masks (CVE-2019-25076).

    Three rules allow UDP by destination port, by source address and by source port; the rest is dropped. 10,000 honest flows use the
    allowed port. "bits": crafted packets differ from each allowed value in one bit, 8,192 patterns; "random": all three fields at
    random. Captures of 131,072 frames are replayed as in `forward`; of the 8,192 patterns they hold 131 at 0.1 %, 1,310 at 1 % and all
    from 10 % on (all at 1 % would take 819,200 frames, which four switches at once would have to hold). A replay takes as many crafted
    packets as its share says, however slow the switch is, so the fair measure is: honest packets forwarded per second, by (honest share
    of the packets x packets forwarded per second with no attack). The seconds are the polling thread's own CPU time: it is cycles per
    packet that are compared, so that what else runs on its core does not count. Two switches with the attack and two without are up at
    once and take turns of 0.2 s, the others being stopped meanwhile; each was given up to 10 s for its flows, which Open vSwitch does
    not have all by then with "bits" from 10 % on. 100 % means that a crafted packet costs no more than an honest one. Cycles are per
    honest packet; calm_spread and hit_spread are how far apart two switches are that do the same."""
    points = []
    for kind in options.pick(("bits", "random"), ("bits",)):
        for percent in options.pick((0.1, 1, 10, 50), (10,)):
            required = (Required("kept_percent", ">=", 90),) if percent == 10 else ()
            sides = {"ours": side(replay.ours, kind, percent), "openvswitch": side(replay.open_vswitch, kind, percent)}
            points.append(Point(f"attack/{kind}/{percent}", "kept_percent", "% kept", sides, required, peer=None))
    return points
