"""One table at a time: what both switches are given, and what they make of it frame by frame. EXCEPTIONS are those of run.py."""
import collections
import dataclasses
import random
import re

import actions
import fragments
import ovs
import packets
import rules
import topology


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
        table = cls(number, "OpenFlow14" if instructions else "OpenFlow10", lines, topology.random_settings(rng), frames, not normal)
        table.frames = [(port, frame) for port, frame in frames if not table.is_fatal(frame)]
        return table

    def is_fatal(self, frame):
        """See EXCEPTIONS, truncated ARP."""
        kind, at = fragments.network_header(frame)
        if kind not in (b"\x08\x06", b"\x80\x35") or len(frame) >= at + 28:
            return False
        return any("arp_op" in line.partition("actions=")[2] for lines in self.rules.values() for line in lines)


def without_dei(frame):
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
    def __init__(self, oracle, subject, seed, how=""):
        self.oracle, self.subject, self.seed = oracle, subject, seed
        self.how = how  # further arguments of run.py
        self.statistics = collections.Counter()
        self.last_sent = {}  # by the subject, for the last frame

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
        return self._frames(table)

    def _frames(self, table):
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
            arriving = self.subject.arrives(port.name, frame)
            if arriving is None:
                return self._lost_frame(port.name, frame)
            traces = [switch.trace(port.bridge, port.number, arriving) for switch in (self.oracle, self.subject)]
            texts, megaflows = zip(*map(actions.trace_parts, traces))
            expected_frames = self.subject.visible(self.oracle.receive(port.name, arriving))
            sent = [expected_frames, self.subject.receive(port.name, frame, expected_frames)]
        except (ovs.Refused, ValueError) as error:
            return "no answer", f"packet: {frame.hex()}\n{error}"
        self.last_sent = sent[1]
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
        if "max_len=" in traces[0] and self._order_is_open(traces[0]) and self._same_but_for_cuts(expected, found, sent):
            self.statistics["cuts behind floods"] += 1
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

    def _lost_frame(self, port, frame):
        """One that the wire does not carry must do nothing."""
        self.statistics["frames lost on the wire"] += 1
        self.last_sent = self.subject.receive(port, frame, {})
        return ("a lost frame does something", f"packet: {frame.hex()}\nsent: {self.last_sent}") if self.last_sent else None

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
    def _order_is_open(trace):
        """See EXCEPTIONS, order of floods."""
        return "NORMAL" in trace or (trace.count('bridge("') > 1 and ("FLOOD" in trace or "ALL" in trace))

    @staticmethod
    def _same_but_for_order(expected, found, sent):
        in_order = [{port: sorted(map(without_dei, frames)) for port, frames in ports.items()} for ports in sent]
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
                f"repeat with: tests/differential/run.py --seed {self.seed} --only {table.number}{self.how}", details,
                f"--- rules ({table.openflow})"]
        for bridge, lines in table.rules.items():
            text += [f"{bridge}: {line}" for line in lines]
        plain = topology.PortSettings()
        changed = {name: settings for name, settings in table.settings.items() if settings != plain}
        text += ["--- ports", *(f"{name}: {settings}" for name, settings in changed.items())] if changed else []
        text += ["--- frames, in order", *(f"{port} {frame.hex()}" for port, frame in table.frames)]
        return "\n".join(text) + "\n"
