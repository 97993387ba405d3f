"""Many rules."""
import json
import pathlib
import time

import lab as labs
import machine
import rulegen
import rulesets
from lab import Failure, Lab, run
from peers import replay
from peers.openvswitch import OpenVSwitch
from peers.ours import Asker, Ours
from traffic import Captures
from workload import Point, Required, percentile, workload


def rule_file(kind, count):
    path = pathlib.Path(Captures.directory) / f"{kind}-{count}.rules"
    if not path.exists():
        with open(path, "w") as file:
            file.writelines(line + "\n" for line in rulegen.KINDS[kind](count))
    return path


def lookups(path):
    """Percentiles in microseconds of slow-path lookups, from a program that has the switch's rule tables and nothing else."""
    figures = json.loads(run(labs.BIN.parent / "bench" / "rule_lookup", path, timeout=300).stdout)
    return {"lookup_us": figures["p50"] / 1e3, "lookup_p99_us": figures["p99"] / 1e3}


def load(make, kind, count):
    """{seconds to load, bytes per rule} of a switch that has just been started."""

    def measure():
        path = rule_file(kind, count)
        with Lab() as lab:
            switch = make(lab, lab.host("b"))
            switch.add_bridge("br0")
            before, start = machine.resident_bytes(switch.pid), time.monotonic()
            switch.ofctl("add-flows", switch.bridge_name("br0"), path, timeout=300)
            elapsed = time.monotonic() - start
            figures = {"seconds": elapsed, "bytes_per_rule": (machine.resident_bytes(switch.pid) - before) / count}
        return figures | lookups(path) if make is Ours else figures

    return measure


class RuleChanger(Asker):
    """Changes of rules over one connection that stays open."""

    def apply(self, *words):
        """Milliseconds from request to reply of a transaction: pairs of command and text."""
        return self.ask("apply", *words) / 1e3

    def sent(self, port):
        return int(self.ask("tx", port))


def moves_at_once(changer, apply):
    """Takes packets away from port "alt" and returns how long that took; Failure unless it stands still from the reply on."""
    elapsed = apply()
    before = changer.sent("alt")
    time.sleep(0.003)
    after = changer.sent("alt")
    if after != before:
        raise Failure(f"{after - before} packets went the old way after the reply")
    return elapsed


def change(match, changes, more=()):
    """Times adding, modifying and deleting a rule of that match among 1,000,000, while its packets (and others) come in."""
    flows, rule_set = 100_000, rulesets.set_up_rules()

    def measure():
        capture = Captures.get(f"setup-{flows}", lambda: (rule_set.frame(n) for n in range(flows)))
        # The replay's rules first; those of the file lie below them and cost every change and every translation their share.
        rules = [rule.replace("priority=", "priority=64") for rule in rule_set.rules]
        with replay.ours(capture, flows, rules, {"flow-limit": 2 * flows, "max-idle": 600_000}) as switch:
            switch.ofctl("add-flows", "br0", rule_file("acl", 1_000_000), timeout=300)
            kind = ["type=dpdk", f'options:dpdk-devargs="{replay.SINK.replace("null0", "null1")}"', "options:dpdk-mbufs=4096"] \
                if replay.has_dpdk(switch) else ["type=pcap"]
            switch.add_port("br0", "alt", *kind, ofport=3)
            installed = replay.settle(switch)
            machine.pin_polling_thread(switch.pid, switch.polling_thread)
            times = {"add": [], "mod": [], "del": []}
            rule = f"priority=65500,{match}"
            with RuleChanger(switch, "br0") as changer:
                for _ in range(changes):
                    before = changer.sent("alt")
                    times["add"].append(changer.apply("add", f"{rule},actions=output:3", *more))
                    deadline = time.monotonic() + 5  # a flow's next packet comes when the capture has gone round
                    while changer.sent("alt") == before:
                        if time.monotonic() > deadline:
                            raise Failure("no packet met the rule that was added")
                    times["mod"].append(moves_at_once(changer, lambda: changer.apply("mod-strict", f"{rule},actions=output:2")))
                    changer.apply("mod-strict", f"{rule},actions=output:3")
                    times["del"].append(moves_at_once(changer, lambda: changer.apply("del-strict", rule)))
            everything = sum(times.values(), [])
            return {"p50_ms": percentile(everything, 0.5), "p99_ms": percentile(everything, 0.99), "max_ms": max(everything),
                    "datapath_flows": installed} | {f"{name}_p50_ms": percentile(t, 0.5) for name, t in times.items()} | switch.note

    return measure


def change_points():
    """(name, match, changes, what else is in the transaction that adds)"""
    one = "udp,nw_src=10.0.0.0,nw_dst=172.16.0.0,tp_src=1024,tp_dst=1000"
    others = [word for i in range(1000) for word in ("add", f"priority=9,udp,nw_dst=192.0.{i // 250}.{i % 250},actions=output:2")]
    # Of three times as many replies, p99 is not the longest one.
    return [("flow", one, 150, ()), ("class", "udp,tp_dst=1005", 150, ()), ("transaction", one, 100, tuple(others)),
            ("everything", "in_port=1", 10, ())]


@workload("rules")
def rules(options):
    """Loading rules with `ofctl add-flows FILE`, memory per rule, and lookup in the slow path, by kind and number.

    Kinds as of ClassBench, from bench/rulegen.py: "acl" 5-tuples with prefixes and port ranges, "l3" routes, "l2" VLAN and address.
    Seconds from the start of the client to its end; for ours that includes the store on disk. Bytes are the growth of the daemon's
    resident memory, by rule (for 1,000 rules that is mostly noise). Lookups are timed one by one in a program with nothing but the rule
    tables (tools/rule_lookup.cc), collecting the fields they depended on; the median counts. Open vSwitch has nothing to time lookups
    with.

    "change": how long add-flow, mod-flows and del-flows of one rule take from request to reply, through one connection, among
    1,000,000 ACL rules, with 100,000 datapath flows installed and their packets coming in. A reply says that the change is on disk and
    that the next packet meets it; that is checked each time, by the counters of a port that the rule gives packets to or takes them
    from. The rule is about one flow ("flow"), about one in 64 ("class"), or about all ("everything"); "transaction" adds it together
    with 1,000 others. Not measured for Open vSwitch: its reply comes before its datapath flows have been looked at again, and when
    traffic follows can only be asked through a client that takes longer to start than the change does."""
    points = [Point(f"rules/change/{name}", "p99_ms", "ms", {"ours": change(match, changes, more)},
                    (Required("p99_ms", "<=", 10),) if name != "everything" else (), better="lower")
              for name, match, changes, more in change_points()]
    for count in options.pick((1_000, 100_000, 1_000_000), (1_000, 100_000)):
        for kind in rulegen.KINDS:
            required = [Required("lookup_us", "<=", 1)] if kind == "acl" else []
            if count == 1_000_000:
                required += [Required("seconds", "<=", 5), Required("bytes_per_rule", "<=", 400)]
            sides = {"ours": load(Ours, kind, count), "openvswitch": load(OpenVSwitch, kind, count)}
            points.append(Point(f"rules/{kind}/{count}", "seconds", "s", sides, tuple(required), better="lower"))
    return points
