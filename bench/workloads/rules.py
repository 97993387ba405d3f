"""Many rules."""
import json
import pathlib
import time

import lab as labs
import machine
import rulegen
from lab import Lab, run
from peers.openvswitch import OpenVSwitch
from peers.ours import Ours
from traffic import Captures
from workload import Point, Required, workload


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


@workload("rules")
def rules(options):
    """Loading rules with `ofctl add-flows FILE`, memory per rule, and lookup in the slow path, by kind and number.

    Kinds as of ClassBench, from bench/rulegen.py: "acl" 5-tuples with prefixes and port ranges, "l3" routes, "l2" VLAN and address.
    Seconds from the start of the client to its end; for ours that includes the store on disk. Bytes are the growth of the daemon's
    resident memory, by rule (for 1,000 rules that is mostly noise). Lookups are timed one by one in a program with nothing but the rule
    tables (tools/rule_lookup.cc), collecting the fields they depended on; the median counts. Open vSwitch has nothing to time lookups
    with."""
    points = []
    for count in options.pick((1_000, 100_000, 1_000_000), (1_000, 100_000)):
        for kind in rulegen.KINDS:
            required = [Required("lookup_us", "<=", 1)] if kind == "acl" else []
            if count == 1_000_000:
                required += [Required("seconds", "<=", 5), Required("bytes_per_rule", "<=", 400)]
            sides = {"ours": load(Ours, kind, count), "openvswitch": load(OpenVSwitch, kind, count)}
            points.append(Point(f"rules/{kind}/{count}", "seconds", "s", sides, tuple(required)))
    return points
