"""A replay through one switch, in memory: a capture comes in by port 1, and port 2 throws away what it is sent.

On every side the same DPDK devices, with one polling thread alone on the packet core. Where ours is built without DPDK ports, its
own "pcap" ports stand in, and the measurement says so."""
import contextlib
import itertools
import time

import machine
from lab import Failure, Lab
from peers.openvswitch import OpenVSwitch
from peers.ours import Ours
from turns import Replay
from peers import testpmd

MIB = 1 << 20
BUFFER_BYTES = 3200  # of huge pages, per packet buffer of the larger kind (Open vSwitch's)
OPEN_VSWITCH_POOL = 262_144
SINK = "net_null0,no-rx=1"


# Replays that take turns are up at once, each in a namespace of its own.
hosts = (f"r{number}" for number in itertools.count())


def source(capture):
    return f"net_pcap0,rx_pcap={capture},infinite_rx=1"


def buffers(frames):
    """Packet buffers that a replay of so many frames needs, with room for what is in flight."""
    return max(OPEN_VSWITCH_POOL, frames + 65_536)


def huge_bytes(frames):
    """Huge pages that a switch needs for such a replay."""
    return buffers(frames) * BUFFER_BYTES + 256 * MIB


def note(kind):
    """What a measurement of ours says about its ports."""
    return {} if kind == "dpdk" else {"note": f"{kind} ports"}


@contextlib.contextmanager
def ours(capture, frames, rules, settings=None):
    machine.hugepages.need(huge_bytes(frames))
    with Lab() as lab:
        switch = Ours(lab, lab.host(next(hosts)), settings)
        switch.add_bridge("br0")
        switch.rules("br0", rules)
        if has_dpdk(switch):
            switch.add_port("br0", "out", "type=dpdk", f'options:dpdk-devargs="{SINK}"', "options:dpdk-mbufs=4096", ofport=2)
        else:
            switch.add_port("br0", "out", "type=pcap", ofport=2)
        switch.note = note(add_source(switch, capture, frames))
        yield switch


def has_dpdk(switch):
    """Whether the daemon was built with DPDK; if not, it says so of every port of that type."""
    probe = ["add-port", "br0", "probe", "type=dpdk", 'options:dpdk-devargs="net_null9,no-rx=1"', "options:dpdk-mbufs=4096"]
    done = switch.tool("vsctl", *probe, check=False)
    if done.returncode == 0:
        switch.vsctl("del-port", "br0", "probe")
    elif "without DPDK" not in done.stderr:
        raise Failure(done.stderr)
    return done.returncode == 0


def add_source(switch, capture, frames):
    """Our port 1, which the capture comes in by for ever. Returns its type."""
    if has_dpdk(switch):
        devargs = f'options:dpdk-devargs="{source(capture)}"'
        switch.add_port("br0", "in", "type=dpdk", devargs, f"options:dpdk-mbufs={buffers(frames)}", ofport=1)
        return "dpdk"
    switch.add_port("br0", "in", "type=pcap", f"rx_pcap={capture}", "loop=infinite", ofport=1)
    return "pcap"


@contextlib.contextmanager
def open_vswitch(capture, frames, rules, settings=None):
    machine.hugepages.need(huge_bytes(frames))
    settings, words = dict(settings or {}), []
    if frames + 65_536 > OPEN_VSWITCH_POOL:
        # More frames than the shared pool holds: a pool per port, which is sized by the queues that are asked for.
        settings["per-port-memory"] = "true"
        words = [f"options:n_rxq={-(-frames // 4096) + 8}", "options:n_rxq_desc=4096"]
    with Lab() as lab:
        switch = OpenVSwitch(lab, lab.host(next(hosts)), dpdk=True, settings=settings)
        switch.add_bridge("br0")
        switch.rules("br0", rules)
        switch.add_port("br0", "out", "type=dpdk", f'options:dpdk-devargs="{SINK}"', ofport=2)
        # Quoted, as commas separate values in a column.
        switch.add_port("br0", "in", "type=dpdk", f'options:dpdk-devargs="{source(capture)}"', *words, ofport=1)
        yield switch


def settle(switch, longest=60.0):
    """Waits until the datapath's flows are set up: their number has stopped growing."""
    end, last = time.monotonic() + longest, -1
    while time.monotonic() < end:
        flows = switch.datapath_flows()
        if flows > 0 and flows <= last * 1.002:
            return flows
        last = flows
        time.sleep(0.5)
    return last


def of_switch(make, capture, frames, rules, longest=60.0):
    """A Replay by turns: flows stay while nothing comes in because another has its turn."""

    @contextlib.contextmanager
    def start():
        with make(capture(), frames, rules, {"max-idle": 600_000}) as switch:
            settle(switch, longest)
            yield replay_of(switch)

    return start


def of_no_switch(capture, frames):
    """A Replay by turns of the same devices with no switch between."""

    @contextlib.contextmanager
    def start():
        with no_switch(capture(), frames, SINK) as process:
            yield Replay(process.pid, "worker", lambda: testpmd.received(process))

    return start


@contextlib.contextmanager
def no_switch(capture, frames, sink, host=None):
    """The process that replays into a DPDK device."""
    size = buffers(frames) * 2500
    machine.hugepages.need(size + 128 * MIB)
    with testpmd.forwarding([source(capture), sink], buffers(frames), size // MIB + 64, host) as process:
        yield process


def replay_of(switch):
    return Replay(switch.pid, switch.polling_thread, lambda: switch.transmitted("out"),
                  lambda: {"datapath_flows": switch.datapath_flows()} | switch.note)


def rate(switch, seconds):
    """What comes out of a switch with no peer: {mpps, cycles} of the polling thread, and how busy it was."""
    replay = replay_of(switch)
    replay.begin()
    time.sleep(seconds)
    replay.end()
    return replay.figures
