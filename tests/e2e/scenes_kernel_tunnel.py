"""The kernel path into VXLAN: streams that go into a tunnel are encapsulated by the kernel, as the daemon would have done it, for as
long as the host's routes, firewall and the switch's rules let them."""
import hashlib
import json
import random
import re
import signal
import time

from lab import Failure, Lab, eventually
from port_kinds import Missing, MissingKind
from scenes_kernel_path import SEND, SINK, in_kernel, state
from scenes_vxlan import UNDERLAY, Overlay

OUR, PEER, _ = UNDERLAY[4]

# Sends a million blocks' worth of pseudo-random bytes, and says what the other has to have received.
SEND_FILE = """
import hashlib, random, socket, sys
block = random.Random(1).randbytes(1 << 20)
with socket.create_connection((sys.argv[1], 9001)) as connection:
    for i in range(int(sys.argv[2])): connection.sendall(block[i:] + block[:i])
    connection.shutdown(socket.SHUT_WR)
    print(connection.recv(1000).decode())
"""
RECEIVE_FILE = """
import hashlib, socket
with socket.create_server(("::", 9001), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
    connection, _ = listener.accept()
    digest = hashlib.sha256()
    while data := connection.recv(1 << 20): digest.update(data)
    connection.sendall(digest.hexdigest().encode())
"""


def overlay(lab, *options, peer="kernel", mtu=1430):
    """Our switch beside w1; the kernel's vxlan device beside w2, or a second switch of ours."""
    network = Overlay(lab, 4, workload_mtu=mtu)
    for host in network.hosts:
        host.run("sysctl", "-qw", "net.ipv6.conf.u.disable_ipv6=1")  # which says things unasked
    switch = network.our_switch(0, *options)
    found = state(switch)[0]
    if "no kernel path" in found or "no TCX" in found or "CAP_BPF" in found:
        raise MissingKind(found)
    if peer == "kernel":
        network.kernel_switch(1)
    else:
        network.our_switch(1)
    network.workloads[0].ping("10.1.0.2", count=2)
    return network, switch


def why_not(switch):
    """Why the tunnel port has no kernel path; "" if nothing speaks against it."""
    found = re.search(r'no_kernel_path="?([^",}]*)', switch.vsctl("get", "interface", "vx0", "status"))
    return found.group(1) if found else ""


def taken(switch):
    eventually(lambda: in_kernel(switch) >= 1, lambda: f"the kernel encapsulates: {state(switch)} {why_not(switch)}", deadline=30)


def stream(network, switch, address="10.1.0.2"):
    w1, w2 = network.workloads
    w2.start("python3", "-c", SINK)
    eventually(lambda: ":9000" in w2.run("ss", "-ltn").stdout, "w2 listens")
    process = w1.start("python3", "-c", SEND, address)
    eventually(lambda: in_kernel(switch) >= 1 and state(switch)[2] > 500, lambda: f"the kernel encapsulates: {state(switch)} {why_not(switch)}")
    return process


def flows_on(network, megabytes=5):
    """The stream still arrives."""
    w2 = network.workloads[1]
    before = w2.counters("eth0")["rx"]["bytes"]
    eventually(lambda: w2.counters("eth0")["rx"]["bytes"] - before > megabytes << 20, "the stream goes on", deadline=30)


def check_silence(network, why):
    """Nothing of the stream leaves for the peer from the call on. What does leave (ARP, ICMP) is small."""
    before = network.hosts[0].counters("u")["tx"]
    time.sleep(0.5)
    after = network.hosts[0].counters("u")["tx"]
    # One packet that had begun its way.
    if after["packets"] - before["packets"] > 1 and after["bytes"] - before["bytes"] > 1400:
        raise Failure(f"{after['packets'] - before['packets']} packets, {after['bytes'] - before['bytes']} bytes left {why}")


def check_file(network, switch, address="10.1.0.2", blocks=200):
    """A file arrives as it was sent, and most of it by way of the kernel."""
    w1, w2 = network.workloads
    block, digest = random.Random(1).randbytes(1 << 20), hashlib.sha256()
    for i in range(blocks):
        digest.update(block[i:] + block[:i])
    receiver = w2.start("python3", "-c", RECEIVE_FILE)
    eventually(lambda: ":9001" in w2.run("ss", "-ltn").stdout, "w2 listens")
    hits = state(switch)[2]
    received = w1.run("python3", "-c", SEND_FILE, address, blocks, timeout=100).stdout.strip()
    receiver.wait(timeout=10)
    if received != digest.hexdigest():
        raise Failure(f"{address}: what arrived is not what was sent")
    if state(switch)[2] - hits < blocks * 4:
        raise Failure(f"{address}: the kernel encapsulated little: {state(switch)} {why_not(switch)}")


def scene_encapsulates_what_the_kernel_peer_takes():
    """With a device that cuts super-frames itself, with one for which the kernel cuts them, and one that makes no checksums."""
    with Lab() as lab:
        network, switch = overlay(lab)
        for features in ((), ("tx-udp_tnl-segmentation", "off"), ("tx", "off")):
            if features:
                network.hosts[0].run("ethtool", "-K", "u", *features)
            check_file(network, switch)
        check_file(network, switch, "fd00:1::2")
        flows = [line for line in switch.dpctl("dump-flows").splitlines() if "kernel_path:yes" in line]
        if not flows or not all("set(tunnel(" in line for line in flows):
            raise Failure("flows in the kernel:\n" + switch.dpctl("dump-flows"))
        switch.check_balance()


def scene_encapsulates_with_large_mtus():
    """Frames that are no super-frames may be longer than the kernel lets an encapsulated one become."""
    with Lab() as lab:
        network, switch = overlay(lab, mtu=30000)
        for host in network.hosts:
            host.run("ip", "link", "set", "u", "mtu", "40000")
            host.run("ip", "link", "set", "p", "mtu", "30000")
        for device in ("vx0", "br0"):
            network.hosts[1].run("ip", "link", "set", device, "mtu", "30000")
        network.workloads[0].run("ping", "-c1", "-W5", "-Mdo", "-s29972", "10.1.0.2")
        check_file(network, switch)
        if "tunnel_push_error" in switch.dpctl("drops"):
            raise Failure("what the kernel cannot encapsulate was dropped:\n" + switch.dpctl("drops"))
        switch.check_balance()


def scene_leaves_the_way_by_an_internal_port_to_the_daemon():
    """The underlay's device is a port of a bridge of ours, which has the host's address."""
    with Lab() as lab:
        network, switch = overlay(lab)
        host = network.hosts[0]
        stream(network, switch)
        host.run("ip", "address", "flush", "dev", "u")
        switch.vsctl("add-br", "br-phy", "--", "add-port", "br-phy", "u")
        host.address("br-phy", f"{OUR}/24")
        eventually(lambda: in_kernel(switch) == 0, lambda: f"the daemon has the stream again: {state(switch)}", deadline=3)
        flows_on(network)
        hits = state(switch)[2]
        flows_on(network)
        if "internal port" not in why_not(switch) or state(switch)[2] != hits:
            raise Failure(f"{why_not(switch)!r}, {state(switch)} after {hits}")
        switch.check_balance()


def scene_counts_like_the_daemon():
    with Lab() as lab:
        network, switch = overlay(lab)
        w1, w2 = network.workloads
        came = lambda: network.hosts[0].counters("p")["rx"]
        before = came(), switch.port_statistics("br0", "p"), switch.port_statistics("br0", "vx0")
        w1.iperf(w2, "10.1.0.2", seconds=2)
        if state(switch)[2] < 500:
            raise Failure(f"the kernel encapsulated little: {state(switch)} {why_not(switch)}")

        def same():
            now = came(), switch.port_statistics("br0", "p"), switch.port_statistics("br0", "vx0")
            for what in ("Packets", "Bytes"):
                real = now[0][what.lower()] - before[0][what.lower()]
                received = now[1]["rx" + what] - before[1]["rx" + what]
                left = now[2]["tx" + what] - before[2]["tx" + what]
                # What the daemon cuts before the kernel takes over is sent as more packets, each with headers.
                if real != received or left < real:
                    same.why = f"{real} {what} came in, {received} were counted, {left} as sent"
                    return False
            return True

        eventually(same, lambda: same.why)
        eventually(lambda: in_kernel(switch) == 0, "idle connections leave", deadline=15)
        eventually(same, lambda: same.why)
        switch.check_balance()


def scene_between_two_of_ours():
    with Lab() as lab:
        network, switch = overlay(lab, peer="ours")
        check_file(network, switch)
        switch.check_balance()


def scene_with_tags_inside():
    """The workloads are in VLAN 10 of a bridge of their own; what comes to the tunnel is tagged."""
    with Lab() as lab:
        network = Overlay(lab, 4, workload_mtu=1400)
        switches = [network.our_switch(0), network.our_switch(1)]
        for host, switch in zip(network.hosts, switches):
            host.run("ip", "link", "add", "trunk", "type", "veth", "peer", "name", "inner")
            for device in ("trunk", "inner"):
                host.run("ip", "link", "set", device, "up")
            switch.vsctl("del-port", "br0", "p")
            switch.vsctl("add-port", "br0", "inner", "ofport_request=1")
            switch.vsctl("add-br", "br1", "--", "add-port", "br1", "trunk", "--", "add-port", "br1", "p", "--", "set", "port", "p", "tag=10")
        if "off" in state(switches[0])[0]:
            raise Missing(state(switches[0])[0])
        network.workloads[0].ping("10.1.0.2", count=2)
        check_file(network, switches[0])
        flows = [line for line in switches[0].dpctl("dump-flows").splitlines() if "kernel_path:yes" in line]
        if not any("set(tunnel(" in line for line in flows):
            raise Failure("flows in the kernel:\n" + switches[0].dpctl("dump-flows"))
        switches[0].check_balance()


def scene_goes_with_a_change_of_rules():
    with Lab() as lab:
        network, switch = overlay(lab)
        stream(network, switch)
        switch.ofctl("add-flow", "br0", "priority=40000,tcp,in_port=1,actions=drop")
        check_silence(network, "after a rule that drops them was acknowledged")
        switch.ofctl("del-flows", "br0", "tcp,in_port=1")
        taken(switch)
        flows_on(network)
        # Another network in the tunnel, which nobody is in.
        switch.ofctl("mod-flows", "br0", "in_port=1,actions=set_field:101->tun_id,output:2")
        before = network.workloads[1].counters("eth0")["rx"]["bytes"]
        time.sleep(0.5)
        if network.workloads[1].counters("eth0")["rx"]["bytes"] - before > 100_000:
            raise Failure("packets still arrive in the network that they do not belong to any more")
        switch.ofctl("mod-flows", "br0", "in_port=1,actions=set_field:100->tun_id,output:2")
        taken(switch)
        switch.check_balance()


def scene_goes_with_a_change_of_the_port():
    with Lab() as lab:
        network, switch = overlay(lab)
        stream(network, switch)
        switch.vsctl("set", "interface", "vx0", "options:csum=true")
        eventually(lambda: in_kernel(switch) == 0, lambda: f"the kernel makes no checksums: {state(switch)}", deadline=2)
        hits = state(switch)[2]
        flows_on(network)
        if state(switch)[2] != hits:
            raise Failure(f"csum=true, and yet {state(switch)} after {hits}")
        eventually(lambda: "checksum" in why_not(switch), lambda: f"the status says why: {why_not(switch)!r}")
        switch.vsctl("remove", "interface", "vx0", "options", "csum")
        taken(switch)
        switch.ofctl("mod-port", "br0", "vx0", "down")
        check_silence(network, "after the port was taken down")
        switch.ofctl("mod-port", "br0", "vx0", "up")
        taken(switch)
        flows_on(network)
        switch.vsctl("del-port", "br0", "vx0")
        check_silence(network, "after the port was deleted")
        if in_kernel(switch) != 0:
            raise Failure(f"connections of a deleted port: {state(switch)}")


def scene_goes_with_the_daemon():
    with Lab() as lab:
        network, switch = overlay(lab)
        stream(network, switch)
        switch.stop(signal.SIGKILL)
        check_silence(network, "after the daemon was killed")
        switch.start()
        taken(switch)


def scene_follows_the_route():
    """A second wire between the hosts; the route moves there and back."""
    with Lab() as lab:
        network, switch = overlay(lab)
        first, second = network.hosts
        lab.wire(first, "v", second, "v")
        first.address("v", "198.51.100.1/24")
        second.address("v", "198.51.100.2/24")
        for device in ("all", "u", "v"):
            second.run("sysctl", "-qw", f"net.ipv4.conf.{device}.rp_filter=0")
        stream(network, switch)
        out = lambda device: first.counters(device)["tx"]["bytes"]
        for step, used, unused in (("add", "v", "u"), ("del", "u", "v")):
            first.run("ip", "route", step, f"{PEER}/32", "via", "198.51.100.2", "dev", "v", "src", OUR)
            taken(switch)
            flows_on(network)
            before = out(used), out(unused)
            flows_on(network, 50)
            if out(used) - before[0] < 50 << 20 or out(unused) - before[1] > 1 << 20:
                raise Failure(f"route {step}: {out(used) - before[0]} bytes left by {used}, {out(unused) - before[1]} by {unused}")
        if state(switch)[2] < 500:
            raise Failure(f"the kernel encapsulated little: {state(switch)}")
        switch.check_balance()


def scene_finds_a_neighbour_that_has_changed():
    with Lab() as lab:
        network, switch = overlay(lab)
        first, second = network.hosts
        stream(network, switch)
        second.run("ip", "link", "set", "u", "address", "02:00:00:00:07:77")
        first.run("ip", "neighbour", "flush", "dev", "u")
        flows_on(network)
        taken(switch)
        found = first.run("ip", "neighbour", "show", PEER).stdout
        if "02:00:00:00:07:77" not in found:
            raise Failure(f"the neighbour is {found}")
        flows_on(network)


# An nftables chain at the hook of outgoing packets, and its end, without nft(8): argument "add" or "delete".
FIREWALL = """
import socket, struct, sys
def attribute(kind, data): return struct.pack("HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)
def message(kind, family, flags, resource, data=b""):
    return struct.pack("IHHII", 20 + len(data), kind, flags | 1, 1, 0) + struct.pack(">BBH", family, 0, resource) + data
INET, OUTPUT, ACK, CREATE = 1, 3, 4, 0x400
table = attribute(1, b"guard\\0")
if sys.argv[1] == "add":
    place = attribute(1, struct.pack(">I", OUTPUT)) + attribute(2, struct.pack(">i", 0))
    changes = [message(0xa00, INET, ACK | CREATE, 0, table),
               message(0xa03, INET, ACK | CREATE, 0, table + attribute(3, b"out\\0") + attribute(0x8004, place) + attribute(7, b"filter\\0"))]
else:
    changes = [message(0xa02, INET, ACK, 0, table)]
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
netlink.bind((0, 0))
netlink.send(message(0x10, 0, 0, 10) + b"".join(changes) + message(0x11, 0, 0, 10))
for _ in changes:
    error = -struct.unpack_from("i", netlink.recv(4096), 16)[0]
    if error: sys.exit(f"nftables: error {error}")
"""


def scene_leaves_the_kernel_for_firewall_and_ipsec():
    with Lab() as lab:
        network, switch = overlay(lab)
        host = network.hosts[0]
        stream(network, switch)
        if host.run("python3", "-c", FIREWALL, "add", check=False).returncode != 0:
            raise Missing("the kernel has no nftables")
        selector = ("dir", "out", "src", "203.0.113.1/32", "dst", "203.0.113.2/32")
        for what, begin, end in (("guard out", None, ("python3", "-c", FIREWALL, "delete")),
                                 ("IPsec", ("ip", "xfrm", "policy", "add", *selector), ("ip", "xfrm", "policy", "delete", *selector))):
            if begin and host.run(*begin, check=False).returncode != 0:
                raise Missing("the kernel has no IPsec")
            eventually(lambda: in_kernel(switch) == 0, lambda: f"{what}: the daemon has the stream again: {state(switch)}", deadline=3)
            hits = state(switch)[2]
            flows_on(network)
            if what not in why_not(switch) or state(switch)[2] != hits:
                raise Failure(f"{what}: {why_not(switch)!r}, {state(switch)} after {hits}")
            host.run(*end)
            taken(switch)
            flows_on(network)
        switch.check_balance()


def scene_keeps_to_the_mtu_of_the_path():
    with Lab() as lab:
        network, switch = overlay(lab)
        host = network.hosts[0]
        stream(network, switch)
        too_big = lambda: sum(int(row["packets"]) for row in json.loads(switch.dpctl("drops", "--format", "json")).get("drops", [])
                              if row["reason"] == "tunnel_too_big")
        host.run("ip", "link", "set", "u", "mtu", "1300")
        eventually(lambda: too_big() > 0, "packets that are too big for the path are dropped, with a reason")
        check_silence(network, "after its MTU was made smaller than they are")
        host.run("ip", "link", "set", "u", "mtu", "1500")
        taken(switch)
        flows_on(network)
        # A route may know more than the device.
        host.run("ip", "route", "add", f"{PEER}/32", "dev", "u", "mtu", "1300")
        before = too_big()
        eventually(lambda: too_big() > before, "packets that are too big for the route are dropped, with a reason")
        host.run("ip", "route", "del", f"{PEER}/32")
        taken(switch)
        flows_on(network)
        switch.check_balance()
