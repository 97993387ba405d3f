"""Fairness: who floods one port with packets of new flows loses his own, not those of the other ports."""
import json
import subprocess

import port_kinds
from lab import Failure, Lab, eventually
from port_kinds import every_port_kind
from scenes_switching import three_hosts

# Frames that nobody has seen before, as fast as they go, written to the device: every one is a new flow.
FLOOD = """
import os, socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
head = bytes.fromhex("020000000002") + b"\\x02\\0\\0\\0\\0\\x03" + b"\\x08\\0" + bytes.fromhex("45000024000000004011") + b"\\0\\0"
tail = struct.pack("!HH", 16, 0) + b"\\0" * 20
while True:
    noise = os.urandom(12 * 1024)
    for at in range(0, len(noise), 12):
        try: s.send(head + noise[at:at + 12] + tail)
        except OSError: pass
"""
# Packets of the other hosts that are a new flow each, too: another source port every time. Tells how many arrived.
SEND = """
import socket, sys, time
for i in range(int(sys.argv[1])):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("10.0.0.1", 20000 + i))
    s.sendto(b"x", ("10.0.0.2", 7777))
    s.close()
    time.sleep(0.002)
"""
RECEIVE = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
s.bind(("10.0.0.2", 7777)); s.settimeout(30)  # the sender may take long to start
print("ready", flush=True)
seen = set()
try:
    while len(seen) < int(sys.argv[1]):
        seen.add(s.recvfrom(64)[1][1])
        s.settimeout(5)
except TimeoutError: pass
print(len(seen), flush=True)
"""


def _drops(switch, reason):
    rows = json.loads(switch.dpctl("drops", "--format", "json")).get("drops", [])
    found = {}
    for row in rows:
        if row["reason"] == reason:
            port = row["port"].removeprefix("ports/")
            found[port] = found.get(port, 0) + int(row["packets"])
    return found


def _honest_are_served(switch, h1, h2):
    """Sends packets of h1 that are a new flow each: all arrive, and none of its ports' is lost."""
    receiver = h2.start("python3", "-c", RECEIVE, "500", stdout=subprocess.PIPE, text=True)
    if receiver.stdout.readline() != "ready\n":
        raise Failure("no receiver")
    h1.run("python3", "-c", SEND, "500")
    ping = h1.ping("10.0.0.2", count=20)
    arrived = int(receiver.stdout.readline())
    receiver.wait(timeout=40)
    lost = _drops(switch, "upcall_queue_full")
    if arrived != 500 or lost.get("p1", 0) or lost.get("p2", 0):
        raise Failure(f"{arrived} of 500 packets of h1 arrived during the flood of h3; lost by port: {lost}\n{switch.dpctl('drops')}")
    return f"{arrived} of 500 packets arrived, each a new flow; {ping.splitlines()[-1]}"


# It takes long, and is about packets that no way of lookup finds a flow for.
@every_port_kind(lookups=False)
def scene_a_flood_of_misses_at_one_port():
    with Lab() as lab:
        switch, _, (h1, h2, h3) = three_hosts(lab)
        # Addresses and source ports are read, so each new one needs a translation; what floods goes a long way to nowhere.
        read_port = "move:NXM_OF_UDP_SRC[]->NXM_NX_REG0[0..15]"
        long_way = [f"table={t},actions=move:NXM_NX_REG{t % 8}[]->NXM_NX_REG{(t + 1) % 8}[],goto_table:{t + 1}" for t in range(1, 60)]
        switch.rules("br0", f"priority=10,in_port=p3,udp,actions={read_port},move:NXM_OF_IP_SRC[]->NXM_NX_REG1[],goto_table:1", *long_way,
                     f"priority=9,udp,actions={read_port},normal", "priority=0,actions=normal")
        h1.ping("10.0.0.2", count=3)
        floods = [h3.start("python3", "-c", FLOOD) for _ in range(2)]

        def look():
            return f"\n{switch.dpctl('drops')}\n{switch.dpctl('show')}\n{switch.port_statistics('br0', 'p3')}"

        def flooded():
            return _drops(switch, "upcall_queue_full").get("p3", 0)

        def too_much():
            counters = switch.port_statistics("br0", "p3")
            if port_kinds.current.name == "dpdk":  # net_af_packet does not count what stays with the device
                return counters["rxPackets"] > 10_000
            return flooded() + counters.get("rxDropped", 0) > 1000

        # At first the forwarding thread helps, and what is too much stays with the device.
        eventually(too_much, lambda: f"p3 is flooded:{look()}")
        print(f"        while the forwarding thread helps: {_honest_are_served(switch, h1, h2)}")
        # Then it has had enough of it, and p3 loses what the handler cannot do.
        eventually(lambda: flooded() > 1000, lambda: f"p3 loses its own:{look()}", deadline=30)
        before = flooded()
        print(f"        when it no longer does: {_honest_are_served(switch, h1, h2)}, while p3 lost {flooded() - before}")
        if flooded() <= before:
            raise Failure("the flood did not go on: this proves nothing")
        for flood in floods:
            flood.terminate()
        for flood in floods:
            flood.wait(timeout=10)
        # Afterwards all is well for the one who flooded, too, as soon as what it has queued is done (seconds, on a busy machine).
        eventually(lambda: h3.run("ping", "-c1", "-W1", "10.0.0.2", check=False).returncode == 0, "h3 is served again", deadline=30)
        h3.ping("10.0.0.2", count=3, timeout=5)
        switch.check_balance()
