"""Tunnels, one direction at a time."""
import time

import machine
import rulesets
from lab import Failure, Lab, eventually
from peers import network, replay
from peers.kernel import KernelBridge
from peers.openvswitch import OpenVSwitch
from peers.ours import Ours
from traffic import Captures
from workload import Point, workload

SECONDS = 3
LOCAL, REMOTE = network.UNDERLAY
VXLAN_HEADER = bytes([8, 0, 0, 0]) + network.VNI.to_bytes(3, "big") + b"\0"
PORT = 4789


def underlay(lab):
    """(switch's host, the other host): one veth pair, "u" on both sides."""
    here, there = lab.host("u1"), lab.host("u2")
    lab.wire(here, "u", there, "u")
    for host, address in ((here, LOCAL), (there, REMOTE)):
        host.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        host.address("u", f"{address}/24")
    # Nothing shall answer "port unreachable" to what is only counted.
    there.run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=1000000")
    return here, there


def add_tunnel(switch):
    switch.add_port("br0", "vx0", "type=vxlan", f"options:remote_ip={REMOTE}", "options:key=flow", ofport=3)


def rate_of(count, pid, seconds=SECONDS):
    """Mpps of a counter, and what the daemon takes meanwhile, if there is one."""
    meter = machine.Meter(pid)
    before, start = count(), time.monotonic()
    time.sleep(seconds)
    packets, elapsed = count() - before, time.monotonic() - start
    if packets <= 0:
        raise Failure("no packet came through the tunnel")
    return {"mpps": packets / elapsed / 1e6} | meter.figures(packets)


# ---------------------------------------------------------------- encapsulation


def capture(flows):
    return Captures.get(f"port-{flows}", lambda: (rulesets.plain_frame(n) for n in range(flows)))


OUTER_HEADERS = 14 + 20 + 8  # Ethernet, IPv4, UDP


def tunnelled(host):
    """VXLAN packets that the host received. A train of them may cross the veth pair uncut: outer headers, then one behind the other."""
    received = host.counters("u")["rx"]
    return (received["bytes"] - received["packets"] * OUTER_HEADERS) // (len(VXLAN_HEADER) + len(rulesets.plain_frame(0)))


ENCAPSULATE = [f"in_port=1,actions=set_field:{network.VNI}->tun_id,output:3"]


def encapsulate_ours(flows):
    with Lab() as lab:
        here, there = underlay(lab)
        machine.hugepages.need(replay.huge_bytes(flows))
        switch = Ours(lab, here)
        switch.add_bridge("br0")
        add_tunnel(switch)
        switch.rules("br0", ENCAPSULATE)
        kind = replay.add_source(switch, capture(flows), flows)
        time.sleep(1)
        return rate_of(lambda: tunnelled(there), switch.pid) | replay.note(kind)


def encapsulate_open_vswitch(flows, memory):
    with Lab() as lab:
        here, there = underlay(lab)
        machine.hugepages.need(replay.huge_bytes(flows))
        switch = OpenVSwitch(lab, here, dpdk=True)
        switch.add_bridge("br0")
        add_tunnel(switch)
        network.underlay_bridge(switch, here)
        if memory:
            # The neighbour is known by now; what goes to it is thrown away.
            switch.add_port("br-phy", "out", "type=dpdk", f'options:dpdk-devargs="{replay.SINK}"', ofport=2)
            switch.rules("br-phy", ["priority=100,in_port=LOCAL,actions=output:2"])
        switch.rules("br0", ENCAPSULATE)
        switch.add_port("br0", "in", "type=dpdk", f'options:dpdk-devargs="{replay.source(capture(flows))}"', ofport=1)
        time.sleep(1)
        if memory:
            return replay.rate(switch, SECONDS)
        return rate_of(lambda: tunnelled(there), switch.pid)


def encapsulate_kernel(flows):
    with Lab() as lab:
        here, there = underlay(lab)
        lab.wire(here, "feed", here, "in")
        KernelBridge(here).overlay("in", LOCAL, REMOTE, network.VNI)
        with replay.no_switch(capture(flows), flows, "net_af_packet0,iface=feed", here):
            eventually(lambda: tunnelled(there) > 1000, "packets come through the tunnel")
            return rate_of(lambda: tunnelled(there), None)


# ---------------------------------------------------------------- decapsulation


DECAPSULATE = [f"in_port=3,tun_id={network.VNI},actions=output:2"]


def send_tunnelled(there):
    """Starts a sender of VXLAN packets for twice the time of the measurement, from 64 ports."""
    payload = (VXLAN_HEADER + rulesets.plain_frame(0)).hex()
    return network.start_probe(there, "send", LOCAL, PORT, 3 * SECONDS, 64, payload)


def decapsulate_switch(make):
    with Lab() as lab:
        here, there = underlay(lab)
        switch = make(lab, here)
        switch.add_bridge("br0")
        if make is OpenVSwitch:
            network.send_plain(there, "u")
            network.underlay_bridge(switch, here)
        add_tunnel(switch)
        lab.wire(here, "out", there, "sink")
        switch.add_port("br0", "out", ofport=2)
        switch.rules("br0", DECAPSULATE)
        send_tunnelled(there)
        return counted_at_sink(there, switch.pid)


def decapsulate_kernel():
    with Lab() as lab:
        here, there = underlay(lab)
        lab.wire(here, "out", there, "sink")
        KernelBridge(here).overlay("out", LOCAL, REMOTE, network.VNI)
        send_tunnelled(there)
        return counted_at_sink(there, None)


def counted_at_sink(there, pid):
    received = lambda: there.counters("sink")["rx"]["packets"]
    eventually(lambda: received() > 1000, "packets come out of the tunnel")
    return rate_of(received, pid)


@workload("vxlan")
def vxlan(options):
    """Encapsulation and decapsulation of 64-byte frames, one direction at a time.

    "encap": a replay in memory, as in `forward`, goes into a tunnel whose underlay is a veth pair; packets are counted at its far end.
    Ours sends through a UDP socket, Open vSwitch builds the outer headers itself and sends over AF_PACKET. "openvswitch-memory" sends
    to net_null rather than to the veth pair: what a datapath can that encapsulates in memory. For "kernel", dpdk-testpmd
    replays over AF_PACKET, which costs it time, too, into a veth pair with a bridge and a vxlan device at its other end. "decap": netprobe
    sends VXLAN packets from 64 ports over the veth pair as fast as one thread can; counted is what leaves by a second veth pair. Sender,
    switch and receiver share the cores. Cycles are of all of the daemon's threads, per packet counted, also those of a polling thread
    that has nothing to do."""
    points = []
    for flows in options.pick((1, 10_000), (10_000,)):
        points.append(Point(f"vxlan/encap/{flows}", "mpps", "Mpps", {
            "ours": lambda n=flows: encapsulate_ours(n), "openvswitch": lambda n=flows: encapsulate_open_vswitch(n, False),
            "openvswitch-memory": lambda n=flows: encapsulate_open_vswitch(n, True), "kernel": lambda n=flows: encapsulate_kernel(n)}))
    points.append(Point("vxlan/decap", "mpps", "Mpps", {
        "ours": lambda: decapsulate_switch(Ours), "openvswitch": lambda: decapsulate_switch(OpenVSwitch),
        "kernel": decapsulate_kernel}))
    return points
