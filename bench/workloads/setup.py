"""Setting up flows."""
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import machine
import rulesets
from lab import Failure
from peers import replay
from traffic import Captures
from workload import Point, Required, workload

LIMIT = 2_000_000  # flows: more than any point has
RAISED = {"flow-limit": LIMIT, "max-idle": 600_000}


def ask(count_flows):
    """(when the flows were counted at the earliest, at the latest, how many there were): both half way from question to answer; where
    that took over half a millisecond, it was held up at one end or the other, and the times are a quarter from each"""
    asked = time.monotonic()
    installed = count_flows()
    answered = time.monotonic()
    half = min(0.00025, (answered - asked) / 2)
    return asked + half, answered - half, installed


def watch(count_flows, flows, longest):
    """[(seconds, flows installed)] from the last moment at which there was none but the gate's, until all are there, or none has come
    for 5 s, or for `longest` seconds."""
    last, now, installed = ask(count_flows)
    start, deadline = last, last + 60
    while installed <= 1 and now <= deadline:
        start = last
        time.sleep(0.0001)
        last, now, installed = ask(count_flows)
    seen, last_growth = [(0.0, 0)], 0.0
    while True:
        if installed > seen[-1][1]:
            last_growth = now - start
        seen.append((now - start, installed))
        if installed >= flows or now - start > longest or now - start - last_growth > 5:
            return seen
        time.sleep(pause(seen, flows))
        _, now, installed = ask(count_flows)


def pause(seen, flows):
    """Seconds until the next question: asking takes CPU time, too. The last but one is to come shortly before they are all there, and
    the last when they are: a whole pause later would be half of the time that a fast switch takes for 10,000."""
    longest, shortest = min(0.2, flows * 4e-7), flows * 3e-8
    (earlier, fewer), (when, installed) = seen[-2:]
    if installed <= fewer:
        return longest
    left = (flows - installed) * (when - earlier) / (installed - fewer)
    return max(shortest, min(longest, left - 3 * shortest if left > 6 * shortest else left))


def rate(seen):
    """(flows per second until 99 % of the most there ever were, the most there ever were)"""
    most = max(count for _, count in seen)
    if most == 0:
        raise Failure("no flow was set up")
    wanted = 0.99 * most
    later = next(i for i, (_, count) in enumerate(seen) if count >= wanted)
    (start, before), (end, after) = seen[later - 1], seen[later]
    when = start + (end - start) * (wanted - before) / (after - before)
    return wanted / max(when, 1e-3), most


GATE = "priority=65535,in_port=1"


def measure(make, settings, flows, longest, placed=contextlib.nullcontext):
    """`placed` says where the switch's threads run while flows are set up."""
    rule_set = rulesets.set_up_rules()
    capture = Captures.get(f"setup-{flows}", lambda: (rule_set.frame(n) for n in range(flows)))
    with make(capture, flows, [*rule_set.rules, f"{GATE},actions=drop"], settings) as switch:
        replay.settle(switch)
        with (placed(switch.pid), switch.flow_counter() as count_flows, switch.rule_remover(GATE) as open_gate,
              ThreadPoolExecutor(1) as beside):
            for _ in range(100):  # the first questions take longest
                count_flows()
            lost_before, received_before = switch.lost()
            opened = beside.submit(open_gate)
            seen = watch(count_flows, flows, longest)
            opened.result()
        lost, received = switch.lost()
        lost, received = lost - lost_before, received - received_before
        per_second, most = rate(seen)
        lost_percent = 100 * lost / max(received, 1)
        return {"flows_per_second": per_second, "installed": most, "lost": lost, "lost_percent": lost_percent} | switch.note


def middle_of_five(measure_once):
    """10,000 flows take a fast switch 10 ms: one other task in the way is a third of that, and the middle one of five such goes says more.
    What was lost is lost in any of them."""
    goes = sorted((measure_once() for _ in range(5)), key=lambda figures: figures["flows_per_second"])
    return goes[2] | {what: max(figures[what] for figures in goes) for what in ("lost", "lost_percent")}


@workload("setup")
def setup(options):
    """New flows per second, each needing its own megaflow, and what is lost meanwhile.

    A capture of that many flows is replayed in memory; 5-tuple rules of 64 masks and a second table that copies addresses and ports to
    registers make every flow depend on its whole 5-tuple. One more rule, of highest priority, drops everything until the switch has
    come to rest, so that nothing but what is to be measured goes on once it is removed. The rate is the number of datapath flows when
    99 % of the most there ever were are installed, by the time since there was none but that rule's; "lost" are packets that met no
    flow and were thrown away meanwhile, of all that were received. Limits are raised to 2,000,000 flows on both sides, and idle times
    with them; "openvswitch-defaults" has its own limit of 200,000. Open vSwitch sets flows up on the polling thread itself, which
    holds the replay up meanwhile; a switch that does not meets each flow again and again.

    10,000 flows are set up five times, each time by a switch just started, and the middle rate counts.

    "one-core": 10,000 flows with all threads of the daemon on one core, the polling thread among them; who asks for the number of flows
    has the other one. What answers is the daemon's, and on its core."""
    one_core = {name: lambda m=make: middle_of_five(lambda: measure(m, RAISED, 10_000, 16, machine.on_one_core))
                for name, make in (("ours", replay.ours), ("openvswitch", replay.open_vswitch))}
    points = [Point("setup/one-core", "flows_per_second", "flows/s", one_core, (Required("flows_per_second", ">=", 300_000),))]
    for flows in options.pick((10_000, 100_000, 1_000_000), (100_000,)):
        longest = 15 + flows / 10_000
        times = middle_of_five if flows <= 10_000 else lambda once: once()
        sides = {name: lambda m=make, n=flows, t=longest, r=times: r(lambda: measure(m, RAISED, n, t))
                 for name, make in (("ours", replay.ours), ("openvswitch", replay.open_vswitch))}
        if flows > 200_000:
            sides["openvswitch-defaults"] = lambda n=flows, t=longest: measure(replay.open_vswitch, None, n, t)
        points.append(Point(f"setup/{flows}", "flows_per_second", "flows/s", sides,
                            (Required("flows_per_second", ">=", 10, "openvswitch"), Required("lost", "<=", 0))))
    return points
