"""A replay through one switch, in memory: a capture comes in by port 1, and port 2 throws away what it is sent.

On every side the same DPDK devices, with one polling thread alone on the packet core. Where ours is built without DPDK ports, its
own "pcap" ports stand in, and the measurement says so."""
import contextlib
import time

import machine
from lab import Failure, Lab
from peers.openvswitch import OpenVSwitch
from peers.ours import Ours
from peers.testpmd import io_rate

MIB = 1 << 20
BUFFER_BYTES = 3200  # of huge pages, per packet buffer of the larger kind (Open vSwitch's)
OPEN_VSWITCH_POOL = 262_144
SINK = "net_null0,no-rx=1"


def source(capture):
    return f"net_pcap0,rx_pcap={capture},infinite_rx=1"


def buffers(frames):
    """Packet buffers that a replay of so many frames needs, with room for what is in flight."""
    return max(OPEN_VSWITCH_POOL, frames + 65_536)


@contextlib.contextmanager
def ours(capture, frames, rules, settings=None):
    with Lab() as lab:
        machine.hugepages.need(buffers(frames) * BUFFER_BYTES + 64 * MIB)
        switch = Ours(lab, lab.host("b"), settings)
        switch.add_bridge("br0")
        switch.rules("br0", rules)
        switch.kind = "dpdk"
        try:
            switch.add_port("br0", "out", "type=dpdk", f'options:dpdk-devargs="{SINK}"', "options:dpdk-mbufs=4096", ofport=2)
        except Failure as failure:
            if "without DPDK" not in str(failure):
                raise
            switch.kind = "pcap"
        if switch.kind == "dpdk":
            switch.add_port("br0", "in", "type=dpdk", f'options:dpdk-devargs="{source(capture)}"', f"options:dpdk-mbufs={buffers(frames)}", ofport=1)
        else:
            switch.add_port("br0", "out", "type=pcap", ofport=2)
            switch.add_port("br0", "in", "type=pcap", f"rx_pcap={capture}", "loop=infinite", ofport=1)
        yield switch


@contextlib.contextmanager
def open_vswitch(capture, frames, rules, settings=None):
    machine.hugepages.need((buffers(frames) * BUFFER_BYTES) + 256 * MIB)
    # More frames than the shared pool holds: a pool per port, which is sized by the queues that are asked for.
    queues = -(-frames // 4096) + 8 if frames + 65_536 > OPEN_VSWITCH_POOL else 0
    with Lab() as lab:
        switch = OpenVSwitch(lab, lab.host("b"), dpdk=True, settings={**(settings or {}), **({"per-port-memory": "true"} if queues else {})})
        switch.add_bridge("br0")
        switch.rules("br0", rules)
        switch.add_port("br0", "out", "type=dpdk", f"options:dpdk-devargs={SINK}", ofport=2)
        words = [f"options:n_rxq={queues}", "options:n_rxq_desc=4096"] if queues else []
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


def rate(switch, seconds):
    """What comes out: {mpps, cycles} of the polling thread, and how busy it was."""
    thread = machine.pin_polling_thread(switch.pid, switch.polling_thread)
    before, start, used = switch.transmitted("out"), time.monotonic(), machine.thread_seconds(switch.pid)[thread]
    time.sleep(seconds)
    after, end, used_after = switch.transmitted("out"), time.monotonic(), machine.thread_seconds(switch.pid)[thread]
    packets = after - before
    if packets <= 0:
        raise Failure(f"nothing came out of port 2 in {seconds} s")
    return {"mpps": packets / (end - start) / 1e6, "cycles": (used_after - used) * machine.tsc_hz() / packets,
            "core_share": (used_after - used) / (end - start)}


def floor(capture, frames, seconds):
    """The same devices with no switch between."""
    machine.hugepages.need(buffers(frames) * 2500 + 128 * MIB)
    pps, per_packet = io_rate([source(capture), SINK], buffers(frames), seconds, buffers(frames) * 2500 // MIB + 64)
    return {"mpps": pps / 1e6, "cycles": per_packet * machine.tsc_hz()}
