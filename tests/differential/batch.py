"""Tables whose frames come in all at once, as a busy wire brings them: what leaves is compared with what Open vSwitch sends for them.

Frames do not influence each other unless rules learn (`normal`). Otherwise vswitch gets many frames on many ports, twice: first no
flow is there, and ports take turns; then all are there, and each port gets its frames in a row. Tables with `normal` go frame by frame,
as in comparison.py, and then burst by burst: of each connection both switches get a frame first, until it changes nothing
any more, and then vswitch gets the connection in a row, twice likewise. What Open vSwitch sends for each frame by itself must leave by each port, byte for byte, no more and no
less. In which order is open between connections; frames of one connection must keep theirs, and so must what one frame makes.

Where batches differ, the frames at fault are found by sending them singly, with traces; the EXCEPTIONS of run.py count there.
"""
import collections
import random

import comparison
import ovs
import packets
import topology
import wires

ETHERNET = 14  # bytes of a header
# Frames made of one connection: rules may multiply them, and the kernel's queues hold 1,000. Where there are no such queues, more
# can be made: what takes long shows best whether frames overtake each other.
MAX_MADE, MAX_MADE_WITHOUT_WIRES = 300, 20_000
# Of tables with `normal`: bursts, and frames of a connection until what they do is the same as before.
BURSTS_THAT_LEARN, MOST_LESSONS = 4, 4


def messages_of(table, seed, ports):
    """What hosts send: the table's own frames, more of the kind, long ones, and bursts of connections, interleaved."""
    rng = random.Random(f"{seed}/{table.number}/batch")
    maker = packets.FrameMaker(rng)
    anywhere = lambda: rng.choice(topology.DUMMIES)
    singles = [*table.frames, *((anywhere(), maker.frame()) for _ in range(14)), *((anywhere(), maker.long_frame()) for _ in range(2))]
    # Less than an Ethernet header: no device of the kernel, and not Open vSwitch, lets one in.
    singles += [(name, rng.randbytes(rng.randrange(1, ETHERNET))) for name, port in ports.items() if isinstance(port, wires.DummyPort)]
    singles = [(port, frame) for port, frame in singles if not table.is_fatal(frame)]
    flows = [[wires.Message(port, (frame,), flow=flow)] for flow, (port, frame) in enumerate(singles)]
    flows += [burst_of(rng, maker, ports, len(flows) + more) for more in range(4)]
    messages = []
    while flows:
        chosen = rng.randrange(len(flows))
        messages.append(flows[chosen].pop(0))
        if not flows[chosen]:
            flows.pop(chosen)
    return messages


def burst_of(rng, maker, ports, flow):
    """The messages of a connection to some port."""
    port, frames = rng.choice(topology.DUMMIES), maker.burst()
    way = rng.choice(ports[port].ways)
    cuts = [tuple(frames)] if way == "super" else [(frame,) for frame in frames]
    return [wires.Message(port, cut, way, flow) for cut in cuts]


class Sample:
    """One frame of a message, and what is made of it: {port: [frames]}."""

    def __init__(self, message, frame):
        self.port, self.flow, self.frame = message.port, message.flow, frame
        self.made = {}


class BatchComparison(comparison.Comparison):
    def _frames(self, table):
        if not table.keep_flows:
            return super()._frames(table) or self._bursts_that_learn(table)
        try:
            messages, samples = self._ask_oracle(messages_of(table, self.seed, self.subject.ports))
            by_port = sorted(messages, key=lambda message: message.port)  # in large batches; connections stay interleaved
            for turn, ordered in (("without flows", messages), ("with flows", by_port)):
                difference = self._batch(table, ordered, samples, turn)
                if difference:
                    return difference
        except ovs.Refused as error:
            return self._report(table, "no answer", str(error))
        return None

    def _bursts_that_learn(self, table):
        rng = random.Random(f"{self.seed}/{table.number}/bursts")
        maker = packets.FrameMaker(rng, normal=True, pushes=True)
        for _ in range(BURSTS_THAT_LEARN):
            difference = self._burst_that_learns(table, burst_of(rng, maker, self.subject.ports, 0))
            if difference:
                return difference
        return None

    def _burst_that_learns(self, table, messages):
        first, before = messages[0], None
        for _ in range(MOST_LESSONS):
            difference = self._frame(table, first.port, first.frames[0])
            if difference:
                return self._report(table, f"a burst's first frame ({first.port}): {difference[0]}", difference[1])
            if self.last_sent == before:
                break
            before = self.last_sent
        else:
            self.statistics["bursts never the same"] += 1
            return None
        try:
            messages, samples = self._ask_oracle(messages)
            self.subject.forget_flows()
            for turn in ("without flows, learned", "with flows, learned"):
                difference = self._batch(table, messages, samples, turn)
                if difference:
                    return difference
        except ovs.Refused as error:
            return self._report(table, "no answer", str(error))
        return None

    def _ask_oracle(self, messages):
        """(messages, their samples), without those of connections of which too much is made."""
        wired = any(isinstance(port, wires.WiredPort) for port in self.subject.ports.values())
        limit = MAX_MADE if wired else MAX_MADE_WITHOUT_WIRES
        kept, samples, made = [], [], collections.Counter()
        for message in messages:
            if made[message.flow] > limit:
                continue
            some = [Sample(message, frame) for frame in message.frames]
            for sample in some:
                self._ask_about(sample)
                made[message.flow] += sum(map(len, sample.made.values()))
            if len(some) == 1 or made[message.flow] <= limit:
                kept.append(message)
                samples += some
        return kept, samples

    def _ask_about(self, sample):
        arriving = self.subject.arrives(sample.port, sample.frame)
        if arriving is None:
            self.statistics["frames lost on the wire"] += 1
        elif len(arriving) >= ETHERNET:
            sample.made = self.subject.visible(self.oracle.receive(sample.port, arriving))

    def _batch(self, table, messages, samples, turn):
        sent = self.subject.receive_all(messages, made_by(samples))
        if not table.keep_flows:  # see EXCEPTIONS, order of floods
            sent = without_dei(sent)
            for sample in samples:
                sample.made = without_dei(sample.made)
        self.statistics[f"frames in batches, {turn}"] += len(samples)
        self.statistics.update(f"messages: {message.way}" for message in messages)
        self.statistics["frames sent"] += sum(map(len, sent.values()))
        difference = tell(samples, sent, table.keep_flows)
        # Those first for which something is missing; what is there too often may be of any.
        missing = subtract(made_by(samples), sent)
        suspects = [sample for sample in samples if any(frame in missing.get(port, ()) for port in sample.made for frame in sample.made[port])]
        for chosen in (suspects, samples):
            if not difference:
                return None
            for sample in chosen:
                report = self._singly(table, sample)
                if report:
                    return report
            difference = tell(samples, sent, table.keep_flows)
        if difference:
            return self._report(table, f"a batch {turn} differs from its frames", self._batch_details(messages, difference))
        return None

    def _singly(self, table, sample):
        if len(sample.frame) < ETHERNET:
            return None
        self.statistics["frames looked at singly"] += 1
        difference = self._frame(table, sample.port, sample.frame)
        if difference:
            return self._report(table, f"a frame of a batch ({sample.port}): {difference[0]}", difference[1])
        sample.made = self.last_sent
        return None

    @staticmethod
    def _batch_details(messages, difference):
        lines = [difference, "--- messages"]
        lines += [f"{message.port} flow {message.flow} {message.way}: {' '.join(frame.hex() for frame in message.frames)}" for message in messages]
        return "\n".join(lines)


def made_by(samples):
    """All that the samples make: {port: [frames]}."""
    result = collections.defaultdict(list)
    for sample in samples:
        for port, frames in sample.made.items():
            result[port] += frames
    return result


def subtract(these, others):
    """{port: the frames of `these` that `others` has not, or not as often}."""
    left = {port: collections.Counter(frames) - collections.Counter(others.get(port, ())) for port, frames in these.items()}
    return {port: frames for port, frames in left.items() if frames}


def without_dei(ports):
    return {port: list(map(comparison.without_dei, frames)) for port, frames in ports.items()}


def tell(samples, sent, in_order=True):
    """"" if what was sent is what the samples make, in an order that may be; else what is wrong. `in_order`: what one frame makes has an
    order, too."""
    made = made_by(samples)
    lines = [f"{what}, {port}: {frame.hex()} ({times} times)" for what, ports in (("missing", subtract(made, sent)), ("too much", subtract(sent, made)))
             for port, frames in ports.items() for frame, times in frames.items()]
    return "\n".join(lines) or wrong_order(samples, sent, in_order)


def wrong_order(samples, sent, in_order):
    """As tell(), of the order alone."""
    for port, frames in sent.items():
        times = collections.Counter(frames)
        place = {frame: at for at, frame in enumerate(frames) if times[frame] == 1}  # others cannot be told apart
        for kind, sequence in sequences(samples, port, in_order):
            places = [place[frame] for frame in sequence if frame in place]
            if places != sorted(places):
                return f"{port}: {kind} changed places: " + ", ".join(f"{at}: {frames[at].hex()}" for at in places)
    return ""


def sequences(samples, port, in_order):
    """What must keep its order on a port: what one frame makes; and the first, second, ... things made of a flow's frames."""
    flows = collections.defaultdict(list)
    for sample in samples:
        made = sample.made.get(port, [])
        if in_order:
            yield "what a frame makes", made
        flows[sample.flow, len(made)].append(made)
    for rows in flows.values():
        for column in zip(*rows):
            yield "frames of a connection", column
