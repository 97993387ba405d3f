#!/usr/bin/env python3
"""Compares vswitch with a real Open vSwitch: the same random rules and the same frames must have the same effect.

Usage: tests/differential/run.py [--tables N] [--packets N] [--seed S] [--only TABLE] [--keep-going N] [--lookup WAY]

Each numbered table is a set of rules for both bridges, settings of their ports, and a sequence of frames; it depends on the
seed and its number only, so `--seed S --only T` repeats one. Both switches keep running: a table replaces the rules of the
one before. For each frame these must agree:
  1. the datapath actions that a trace reports, by port name (actions.py says what is left out of account);
  2. the bytes that leave by every port, from capture files.
A set of rules must also be taken by both or refused by both.

A mismatch prints everything needed to repeat it by hand, and puts it into build/repro-SEED-TABLE.txt.

EXCEPTIONS: where no agreement is asked for
- Order of floods. Open vSwitch floods in the order of a hash. That is no difference among plain outputs. But `normal` changes
  tags from port to port, and a patch port does the other bridge's actions when its turn comes. For these, the same packets
  must go to the same ports equally often, in any order (_order_is_open). For the same reason rules with `normal` have no
  output with max_len: Open vSwitch cuts before tags are changed, so what is cut depends on the port before. Nor does the
  drop eligible bit of tags count there: it survives until a tag is taken off and put back, which the order decides.
- Priority tags (VLAN 0, priority 0) beside another tag, in `normal`. Open vSwitch loses the tag behind one, and with it the
  packet's VLAN, or the one behind another tag; vswitch takes off the outermost alone. Rules and frames with `normal` make no
  such packets.
- Cuts below 22 bytes. Both cut before tags are taken off, and Open vSwitch then sends nothing that is shorter than an
  Ethernet header; vswitch leaves the header whole. Rules cut at 22 bytes or more: a header and two tags.
- Cuts left behind. If an output with max_len is skipped (its port does not forward, or the packet came from it), Open vSwitch's trunc()
  stays, and cuts the next output instead; vswitch drops the cut with its output.
- Limits. Open vSwitch bounds actions by their size in netlink, vswitch by their number. Nothing is compared beyond either
  (_over_a_limit). A packet may be recirculated 6 times in Open vSwitch's datapath, 8 times in vswitch's.
- debug_recirc. Open vSwitch forgets what follows a clone that recirculates, mistakes what `exit` left out for what a later
  recirculation has to go on with, and looks a packet that comes back to no actions up in table 0 once more; and it ends
  itself by an assertion if an action set is longer than what is left to do. Rules with it have no clone, no exit and no write_actions,
  and do not end in it.
- Masks of set(...). What a megaflow matches exactly need not be masked out in a set action, and which bits either switch
  leaves in is its own business, if values and bytes sent agree.
- Later fragments. They have no transport header, but Open vSwitch writes into them as if they had: the checksum of TCP or UDP
  when an address changes, and type and code of ICMP. Linux and vswitch leave them alone. Bytes at these places are left out
  then, for such packets and actions only.
- IPv6 with a fragment header. Open vSwitch changes addresses and leaves the transport checksum as it was, which is then wrong.
  Checksums are left out then, for such packets only.
- SCTP ports of first fragments. The checksum covers the whole datagram, so neither can keep it right; vswitch drops the
  packet, Open vSwitch sends it with a wrong one. Bytes are not compared then.
- Neighbour messages with both link-layer addresses. There should be none; Open vSwitch extracts both, but writes the first
  only. Bytes are not compared then, if one of them is written.
- Short tagged frames. The bridges' own ports are devices of the kernel here, which drops frames that end within two bytes
  after a tag; such frames are left out on these ports.
- Packet-ins. What a userspace action asks for is compared by its presence and place.
"""
import argparse
import collections
import dataclasses
import os
import pathlib
import random
import re
import shutil
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import actions  # noqa: E402
import actions_test  # noqa: E402
import fragments  # noqa: E402
import ours  # noqa: E402
import ovs  # noqa: E402
import packets  # noqa: E402
import rules  # noqa: E402
import port_kinds  # noqa: E402, of the end-to-end tests, on the path since ours
import topology  # noqa: E402

# What decides how the datapath finds flows; ports are of type dummy in any case.
LOOKUPS = {"all": port_kinds.NETDEV} | {kind.name: kind for kind in port_kinds.KINDS if kind.daemon}


@dataclasses.dataclass
class Table:
    """One case: what both switches are given."""

    number: int
    openflow: str
    rules: dict  # bridge: lines
    settings: dict  # port: PortSettings
    frames: list  # (port, bytes)
    keep_flows: bool  # let the datapath's flows of one frame serve the next

    @classmethod
    def random(cls, seed, number, frame_count):
        rng = random.Random(f"{seed}/{number}")
        instructions, normal, recirculation = rng.random() < 0.7, rng.random() < 0.45, rng.random() < 0.2
        tables = rng.randrange(1, 5)
        lines = {}
        for bridge in topology.BRIDGES:
            ports = topology.ports_of(bridge)
            # No way out of the bridge that recirculates but its own ports: loops would multiply with each pass.
            looping = recirculation and bridge == topology.BRIDGES[-1]
            numbers = [port.number for port in ports if not (looping and port.peer)]
            maker = rules.RuleMaker(rng, numbers, [port.number for port in ports if port.peer], tables, instructions,
                                    normal and not looping, looping)
            lines[bridge] = maker.rules(rng.choice((2, 5, 10, 20, 30)))
        maker = packets.FrameMaker(rng, normal, normal and instructions)
        frames = []
        in_ports = rng.sample([port.name for port in topology.PORTS if not port.peer], 3)
        for _ in range(frame_count):
            # Some frames come again, from elsewhere: what was learned and cached has to serve them.
            frame = rng.choice(frames)[1] if frames and rng.random() < 0.2 else maker.frame()
            frames.append((rng.choice(in_ports), frame))
        # Learning changes what cached flows should do, a moment later; without it they may stay.
        return cls(number, "OpenFlow14" if instructions else "OpenFlow10", lines, topology.random_settings(rng), frames, not normal)


def _without_dei(frame):
    """The frame without the drop eligible bits of its first two VLAN tags, which are lost when tags are pushed anew."""
    changed = bytearray(frame)
    for at in (12, 16):
        if changed[at : at + 2] not in (b"\x81\0", b"\x88\xa8") or len(changed) < at + 4:
            break
        changed[at + 2] &= 0xEF
    return bytes(changed)


# See EXCEPTIONS, cuts left behind.
CUT_WITHOUT_OUTPUT = re.compile(r"output\(port=[^\n]*max_len=\d+\)\n *[>-]> ")


class Comparison:
    def __init__(self, oracle, subject, seed):
        self.oracle, self.subject, self.seed = oracle, subject, seed
        self.statistics = collections.Counter()

    def table(self, table):
        """Runs one table; returns None or the text of what differs."""
        for switch in (self.oracle, self.subject):
            switch.configure(table.settings)
        refusals = {switch.name: self._load(switch, table) for switch in (self.oracle, self.subject)}
        if any(refusals.values()):
            if all(refusals.values()):
                self.statistics["refused by both"] += 1
                return None
            return self._report(table, "one refuses the rules", "\n".join(f"{name}: {text or 'takes them'}" for name, text in refusals.items()))
        self.oracle.forget()
        self.subject.forget()
        self.subject.forget_flows()
        for number, (port, frame) in enumerate(table.frames):
            difference = self._frame(table, port, frame)
            if difference:
                return self._report(table, f"frame {number} ({port}): {difference[0]}", difference[1])
        return None

    def _load(self, switch, table):
        try:
            for bridge, lines in table.rules.items():
                switch.load(bridge, lines, table.openflow)
        except ovs.Refused as error:
            return str(error)
        return None

    def _frame(self, table, port_name, frame):
        self.statistics["frames"] += 1
        port = next(port for port in topology.PORTS if port.name == port_name)
        if not table.keep_flows:
            self.subject.forget_flows()
        try:
            traces = [switch.trace(port.bridge, port.number, frame) for switch in (self.oracle, self.subject)]
            texts, megaflows = zip(*map(actions.trace_parts, traces))
            expected_frames = self._without_lost(self.oracle.receive(port.name, frame))
            sent = [expected_frames, self._without_lost(self.subject.receive(port.name, frame, expected_frames))]
        except (ovs.Refused, ValueError) as error:
            return "no answer", f"packet: {frame.hex()}\n{error}"
        expected, found = map(actions.canonical, texts)
        # What only the later passes do is in the trace of one of the two; exceptions may be about these.
        later = actions.passes(traces[1])[1:]
        traces = [trace + "".join(later) for trace in traces[:1]] + traces[1:]
        done = ",".join([texts[0], *(actions.trace_parts(trace)[0] for trace in later)])
        self._count(expected, sent[0], megaflows)
        kinds = ([] if expected == found else ["datapath actions"]) + ([] if sent[0] == sent[1] else ["bytes sent"])
        if not kinds:
            return None
        if self._fragment_rewritten(traces[0], done) or ("set(ipv6(" in done and fragments.has_ipv6_header(frame)):
            self.statistics["fragments rewritten"] += 1
            expected = [part for part in expected if not (isinstance(part, str) and part.startswith("set(icmp"))]
            sent = [{port: [fragments.without_sums(data) for data in frames] for port, frames in ports.items()} for ports in sent]
            if actions.outputs(expected) == actions.outputs(found):
                found = expected
        if expected == found and "nw_frag=first" in traces[0].split("\n", 1)[0] and "set(sctp(" in done:
            self.statistics["SCTP of first fragments"] += 1
            return None
        if self._over_a_limit(*traces):
            self.statistics["over a limit on actions"] += 1
            return None
        if expected == found and self._has_both_link_addresses(traces[0]) and "set(nd(" in done:
            self.statistics["both link addresses rewritten"] += 1
            return None
        if CUT_WITHOUT_OUTPUT.search(traces[0]) and self._same_but_for_cuts(expected, found, sent):
            self.statistics["cuts left behind"] += 1
            return None
        if sent[0] == sent[1] and expected == found:
            return None
        if sent[0] == sent[1] and actions.same_but_for_masks(expected, found):
            self.statistics["set with another mask"] += 1
            return None
        if self._order_is_open(traces[0]) and self._same_but_for_order(expected, found, sent):
            self.statistics["the same in another order"] += 1
            return None
        return " and ".join(kinds) + " differ", self._details(frame, texts, traces, sent)

    @staticmethod
    def _same_but_for_cuts(expected, found, sent):
        bare = [[part.rpartition(")")[2] for part in actions.outputs(parts)] for parts in (expected, found)]
        if sorted(bare[0]) != sorted(bare[1]) or sent[0].keys() != sent[1].keys():
            return False
        return all(len(sent[0][port]) == len(sent[1][port]) and
                   all(one.startswith(other) or other.startswith(one) for one, other in zip(sorted(sent[0][port]), sorted(sent[1][port])))
                   for port in sent[0])

    @staticmethod
    def _over_a_limit(expected, found):
        """See EXCEPTIONS, limits."""
        too_often = found.count("\nrecirc(0x") > 6
        return "over 64 kB of actions <<<<" in expected or " datapath actions <<<<" in found or too_often

    @staticmethod
    def _has_both_link_addresses(trace):
        """See EXCEPTIONS, neighbour messages."""
        flow = trace.split("\n", 1)[0]
        return all(f"{name}=" in flow and f"{name}=00:00:00:00:00:00" not in flow for name in ("nd_sll", "nd_tll"))

    @staticmethod
    def _fragment_rewritten(trace, text):
        """See EXCEPTIONS, later fragments."""
        return "nw_frag=later" in trace.split("\n", 1)[0] and any(f"set({name}" in text for name in ("ipv4(", "ipv6(", "icmp"))

    @staticmethod
    def _without_lost(sent):
        """See EXCEPTIONS, short tagged frames."""
        for bridge in topology.BRIDGES:
            kept = [frame for frame in sent.pop(bridge, ()) if len(frame) >= 20 or frame[12:14] not in (b"\x81\0", b"\x88\xa8")]
            if kept:
                sent[bridge] = kept
        return sent

    @staticmethod
    def _order_is_open(trace):
        """See EXCEPTIONS, order of floods."""
        return "NORMAL" in trace or (trace.count('bridge("') > 1 and ("FLOOD" in trace or "ALL" in trace))

    @staticmethod
    def _same_but_for_order(expected, found, sent):
        in_order = [{port: sorted(map(_without_dei, frames)) for port, frames in ports.items()} for ports in sent]
        return actions.outputs(expected) == actions.outputs(found) and in_order[0] == in_order[1]

    def _count(self, expected, sent, megaflows):
        self.statistics["frames that do something"] += bool(expected)
        self.statistics["frames recirculated"] += "recirc()" in expected
        self.statistics["frames sent"] += sum(map(len, sent.values()))
        for field in actions.megaflow_fields(megaflows[0]) - actions.megaflow_fields(megaflows[1]):
            self.statistics[f"megaflows without {field}"] += 1

    def _details(self, frame, texts, traces, sent):
        names = (self.oracle.name, self.subject.name)
        parts = [f"packet: {frame.hex()}"]
        parts += [f"{name}: {text or 'drop'}" for name, text in zip(names, texts)]
        for name, ports in zip(names, sent):
            parts.append(f"--- {name} sends")
            parts += [f"{port}: {data.hex()}" for port in sorted(ports) for data in ports[port]] or ["nothing"]
        for name, trace in zip(names, traces):
            parts += [f"--- trace of {name}", trace.rstrip()]
        return "\n".join(parts)

    def _report(self, table, headline, details):
        text = [f"MISMATCH in table {table.number} of seed {self.seed}: {headline}",
                f"repeat with: tests/differential/run.py --seed {self.seed} --only {table.number}", details,
                f"--- rules ({table.openflow})"]
        for bridge, lines in table.rules.items():
            text += [f"{bridge}: {line}" for line in lines]
        plain = topology.PortSettings()
        changed = {name: settings for name, settings in table.settings.items() if settings != plain}
        text += ["--- ports", *(f"{name}: {settings}" for name, settings in changed.items())] if changed else []
        text += ["--- frames, in order", *(f"{port} {frame.hex()}" for port, frame in table.frames)]
        return "\n".join(text) + "\n"


def compare(arguments, directory):
    """Returns (passed, failed)."""
    oracle = subject = None
    try:
        oracle = ovs.OpenVSwitch(directory / "ovs")
        subject = ours.Vswitch(directory / "vswitch", LOOKUPS[arguments.lookup])
        comparison = Comparison(oracle, subject, arguments.seed)
        numbers = [arguments.only] if arguments.only is not None else range(arguments.tables)
        passed = failed = 0
        for number in numbers:
            report = comparison.table(Table.random(arguments.seed, number, arguments.packets))
            if report is None:
                passed += 1
                continue
            failed += 1
            build = ROOT / "build"
            build.mkdir(exist_ok=True)
            (build / f"repro-{arguments.seed}-{number}.txt").write_text(report)
            print(report, flush=True)
            if failed >= arguments.keep_going:
                print(f"stopped after {failed} mismatches")
                break
        for what, count in sorted(comparison.statistics.items()):
            print(f"{what}: {count}")
        return passed, failed
    except BaseException:
        if subject:
            print(f"--- last of the log of vswitchd\n{subject.log()}")
        raise
    finally:
        for switch in (subject, oracle):
            if switch:
                switch.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=300)
    parser.add_argument("--packets", type=int, default=10, help="frames for each table")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="run this table alone")
    parser.add_argument("--keep-going", type=int, default=5, help="stop after so many mismatches")
    parser.add_argument("--lookup", choices=LOOKUPS, default="all", help="by which ways vswitch's datapath looks flows up")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("tests/differential: network namespaces need root; run it with sudo", file=sys.stderr)
        return 1
    complaint = actions_test.run()
    if complaint:
        print(complaint)
        print("0 passed, 1 failed")
        return 1
    directory = pathlib.Path(tempfile.mkdtemp(prefix="vswitch-differential-"))
    start = time.monotonic()
    try:
        passed, failed = compare(arguments, directory)
    except Exception:  # noqa: BLE001: whatever went wrong, the last line must say that it did
        traceback.print_exc(file=sys.stdout)
        passed, failed = 0, 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{time.monotonic() - start:.1f} s")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
