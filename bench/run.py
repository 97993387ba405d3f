#!/usr/bin/env python3
"""Named workloads on the real daemon, each measured as bench/README.md says.

Usage: bench/run.py [--format text|json] [--rounds N] [NAME...]    default: all
Needs root (network namespaces) and a release build (scripts/build release).
"""
import argparse
import json
import os
import pathlib
import statistics
import struct
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from lab import Failure, Lab  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
WORKLOADS = {}


def workload(unit, at_least=None, at_most=None):
    def register(function):
        WORKLOADS[function.__name__] = {"run": function, "unit": unit, "at_least": at_least, "at_most": at_most,
                                        "what": (function.__doc__ or "").strip().splitlines()[0]}
        return function

    return register


# ---------------------------------------------------------------- helpers


def cpu_seconds(pid):
    """User and system time of a process, all its threads."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def udp_frame(flow):
    """A 64-byte frame (60 without FCS) of flow number `flow`: addresses and ports differ from flow to flow."""
    source = bytes([10, 1 + flow // 65536, flow // 256 % 256, flow % 256])
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 46, 0, 0, 64, 17, 0, source, bytes([10, 200, 0, 1]))
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    udp = struct.pack("!HHHH", 1024 + flow % 60000, 53, 26, 0) + bytes(18)
    return bytes.fromhex("02000000000b02000000000a0800") + header + udp


def write_pcap(path, frames):
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for frame in frames:
            file.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)


def five_tuple_rules(count=64):
    """Rules over source and destination prefixes, protocol and ports, as a small firewall has them; all forward to port 2."""
    rules = ["priority=1,udp,nw_src=10.0.0.0/8,nw_dst=10.200.0.0/16,tp_dst=53,actions=output:2"]
    for i in range(count):
        rules.append(f"priority={100 + i},tcp,nw_src=10.{i}.0.0/16,nw_dst=10.201.{i}.0/24,tp_dst={1000 + i},actions=output:2")
    return rules


def forward_rate(flows, rules, seconds=2.0):
    """What one forwarding thread takes from a replay to a counting port: packets per second, and CPU time per packet."""
    with Lab() as lab:
        host = lab.host("b")
        switch = lab.switch(host)
        capture = lab.directory / "in.pcap"
        write_pcap(capture, [udp_frame(i) for i in range(flows)])
        switch.vsctl("add-br", "br0", "fail_mode=secure")
        switch.rules("br0", *rules)
        switch.vsctl("add-port", "br0", "out", "type=pcap", "ofport_request=2")
        switch.vsctl("add-port", "br0", "in", "type=pcap", f"rx_pcap={capture}", "loop=infinite", "ofport_request=1")
        time.sleep(1.0)  # flows are set up
        pid = switch.process.pid
        before, start, used = switch.port_statistics("br0", "out")["txPackets"], time.monotonic(), cpu_seconds(pid)
        time.sleep(seconds)
        after, end, used_after = switch.port_statistics("br0", "out")["txPackets"], time.monotonic(), cpu_seconds(pid)
        packets = after - before
        return {"value": packets / (end - start) / 1e6, "cpu_share": (used_after - used) / (end - start),
                "ns_per_packet": (used_after - used) * 1e9 / max(packets, 1)}


# ---------------------------------------------------------------- workloads


@workload("Mpps", at_least=10)
def forward_1k():
    """64-byte frames in memory, one core, 1,000 flows, 5-tuple rules"""
    return forward_rate(1000, five_tuple_rules())


@workload("Mpps")
def forward_1():
    """64-byte frames in memory, one core, one flow, one port rule"""
    return forward_rate(1, ["in_port=1,actions=output:2"])


@workload("Mpps")
def forward_10k():
    """64-byte frames in memory, one core, 10,000 flows, 5-tuple rules"""
    return forward_rate(10000, five_tuple_rules())


@workload("Mpps")
def forward_100k():
    """64-byte frames in memory, one core, 100,000 flows, 5-tuple rules"""
    return forward_rate(100000, five_tuple_rules())


@workload("Gbit/s", at_least=5)
def tcp():
    """TCP between two namespaces over veth, through one switch"""
    with Lab() as lab:
        middle, a, b = lab.host("sw"), lab.host("a"), lab.host("b")
        for host, port, address in ((a, "pa", "10.0.0.1"), (b, "pb", "10.0.0.2")):
            lab.wire(host, "eth0", middle, port)
            host.address("eth0", f"{address}/24")
        switch = lab.switch(middle)
        switch.vsctl("add-br", "br0", "--", "add-port", "br0", "pa", "--", "add-port", "br0", "pb")
        a.ping("10.0.0.2", count=2)
        return {"value": a.iperf(b, "10.0.0.2", seconds=4) / 1e9}


@workload("Gbit/s", at_least=2)
def tcp_vxlan():
    """TCP over VXLAN: our switch on one side, the kernel's bridge and vxlan on the other"""
    import scenes_vxlan
    with Lab() as lab:
        overlay = scenes_vxlan.Overlay(lab, 4, workload_mtu=1450)
        overlay.our_switch(0)
        overlay.kernel_switch(1)
        overlay.workloads[0].ping("10.1.0.2", count=2)
        out = overlay.workloads[0].iperf(overlay.workloads[1], "10.1.0.2", seconds=4) / 1e9
        back = overlay.workloads[1].iperf(overlay.workloads[0], "10.1.0.1", seconds=4) / 1e9
        return {"value": min(out, back), "encapsulating": out, "decapsulating": back}


def load_rules(count):
    with Lab() as lab:
        switch = lab.switch(lab.host("b"))
        switch.vsctl("add-br", "br0", "fail_mode=secure")
        path = lab.directory / "rules.txt"
        with open(path, "w") as file:
            for i in range(count):
                file.write(f"priority={1 + i % 60000},tcp,nw_src=10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255},nw_dst=10.200.{i % 250}.1,"
                           f"tp_dst={1 + i % 60000},actions=output:{1 + i % 100}\n")
        before, start = resident_bytes(switch.process.pid), time.monotonic()
        switch.ofctl("add-flows", "br0", path, timeout=120)
        elapsed = time.monotonic() - start
        return elapsed, (resident_bytes(switch.process.pid) - before) / count


@workload("s", at_most=1)
def rules_100k():
    """100,000 rules loaded through ofctl add-flows"""
    elapsed, per_rule = load_rules(100_000)
    return {"value": elapsed, "resident_bytes_per_rule": per_rule}


@workload("bytes", at_most=500)
def rule_memory():
    """Growth of the daemon's resident memory per rule, at 500,000 rules"""
    elapsed, per_rule = load_rules(500_000)
    return {"value": per_rule, "seconds": elapsed}


@workload("s", at_most=10)
def ports_1000():
    """1,000 ports added one by one with vsctl"""
    with Lab() as lab:
        switch = lab.switch(lab.host("b"))
        switch.vsctl("add-br", "br0")
        start = time.monotonic()
        for i in range(1000):
            switch.vsctl("add-port", "br0", f"d{i}", "type=dummy")
        return {"value": time.monotonic() - start}


@workload("% of a core", at_most=1)
def idle():
    """CPU time of an idle daemon with 64 ports up"""
    with Lab() as lab:
        host, other = lab.host("sw"), lab.host("o")
        switch = lab.switch(host)
        switch.vsctl("add-br", "br0")
        for i in range(64):
            lab.wire(other, f"e{i}", host, f"p{i}")
            for end, device in ((host, f"p{i}"), (other, f"e{i}")):
                end.run("sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1")
            switch.vsctl("add-port", "br0", f"p{i}")
        time.sleep(2)
        pid, seconds = switch.process.pid, 10.0
        before = cpu_seconds(pid)
        time.sleep(seconds)
        return {"value": 100 * (cpu_seconds(pid) - before) / seconds}


# ---------------------------------------------------------------- running


def summarise(name, rounds):
    spec = WORKLOADS[name]
    values = [r["value"] for r in rounds]
    row = {"workload": name, "what": spec["what"], "unit": spec["unit"], "median": statistics.median(values), "min": min(values),
           "max": max(values), "rounds": rounds}
    if spec["at_least"] is not None:
        row["goal"], row["reached"] = f">= {spec['at_least']}", row["median"] >= spec["at_least"]
    if spec["at_most"] is not None:
        row["goal"], row["reached"] = f"<= {spec['at_most']}", row["median"] <= spec["at_most"]
    return row


def print_text(rows):
    print(f"{'workload':14} {'median':>9} {'min':>9} {'max':>9}  {'unit':12} {'goal':9} what")
    for row in rows:
        goal = row.get("goal", "")
        mark = "" if not goal else ("ok" if row["reached"] else "MISSED")
        print(f"{row['workload']:14} {row['median']:9.3f} {row['min']:9.3f} {row['max']:9.3f}  {row['unit']:12} {goal:9} {row['what']} {mark}")
        extras = [k for k in row["rounds"][0] if k != "value"]
        if extras:
            print(" " * 15 + ", ".join(f"{k} {statistics.median(r[k] for r in row['rounds']):.2f}" for k in extras))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="workloads: " + " ".join(WORKLOADS))
    parser.add_argument("--format", choices=["text", "json"], default="text")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for name in options.names:
        if name not in WORKLOADS:
            parser.error(f"unknown workload \"{name}\"; known: {' '.join(WORKLOADS)}")
    names = options.names or list(WORKLOADS)
    rounds = {name: [] for name in names}
    try:
        for _ in range(options.rounds):  # interleaved, so that a noisy minute hits all alike
            for name in names:
                rounds[name].append(WORKLOADS[name]["run"]())
    except Failure as failure:
        print(f"bench: {name}: {failure}", file=sys.stderr)
        return 1
    rows = [summarise(name, rounds[name]) for name in names]
    if options.format == "json":
        print(json.dumps(rows, indent=1))
    else:
        print_text(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
