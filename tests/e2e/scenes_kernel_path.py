"""The kernel path: connections that are only passed on are forwarded by the kernel, and nobody can tell but by the speed.

What the kernel does must be what the flows say, at every moment at which somebody was told so; it counts like the daemon; and it
ends with the daemon.
"""
import json
import signal
import subprocess
import time

from lab import Failure, Lab, eventually
from port_kinds import Missing, MissingKind

SEND = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 9000))
block = bytes(1 << 20)
try:
    while True: connection.sendall(block)
except OSError: pass
"""
SINK = """
import socket
listener = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    connection, _ = listener.accept()
    try:
        while connection.recv(1 << 20): pass
    except OSError: pass
"""


def state(switch):
    """(why it is off or "on", connections in the kernel, packets forwarded)"""
    datapath = json.loads(switch.dpctl("show", "--format", "json"))
    return (datapath.get("kernelPath", ""), int(datapath.get("kernelPathConnections", 0)), int(datapath.get("kernelPathHits", 0)))


def in_kernel(switch):
    return state(switch)[1]


def two_hosts(lab, rules=("priority=0,actions=normal",), addresses=("10.0.0.{}/24",)):
    """Hosts h1 and h2 on ports p1 and p2 of a switch, which sees nothing but what the scene sends."""
    middle = lab.host("sw")
    middle.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    switch = lab.switch(middle)
    switch.vsctl("add-br", "br0")
    hosts = []
    for i in (1, 2):
        host = lab.host(f"h{i}")
        if not any(":" in address for address in addresses):
            host.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")  # which says things unasked
        lab.wire(host, "eth0", middle, f"p{i}")
        host.address("eth0", *(address.format(i) for address in addresses), mac=f"02:00:00:00:00:0{i}")
        switch.vsctl("add-port", "br0", f"p{i}")
        hosts.append(host)
    switch.rules("br0", *rules)
    found = state(switch)[0]
    if "no kernel path" in found or "no TCX" in found or "CAP_BPF" in found:
        raise MissingKind(found)
    return switch, middle, hosts


def stream(switch, sender, receiver, address="10.0.0.2"):
    """Starts a TCP stream that does not end, and waits until the kernel forwards both its directions."""
    receiver.start("python3", "-c", SINK)
    eventually(lambda: ":9000" in receiver.run("ss", "-ltn").stdout, f"{receiver.name} listens")
    process = sender.start("python3", "-c", SEND, address)
    eventually(lambda: in_kernel(switch) >= 2 and state(switch)[2] > 1000, lambda: f"the kernel forwards: {state(switch)}")
    return process


def sent(host, device):
    """Packets that left by a device, by the kernel's own count."""
    return host.counters(device)["tx"]["packets"]


def check_silence(host, device, why):
    """Nothing leaves by the device from the call on. (What was on its way on another processor has left before the next look.)"""
    before = sent(host, device)
    time.sleep(0.5)
    after = sent(host, device)
    # One packet that had begun its way.
    if after - before > 1:
        raise Failure(f"{after - before} packets left by {device} {why}")


def scene_kernel_path_counts_every_packet():
    with Lab() as lab:
        switch, middle, (h1, h2) = two_hosts(lab)
        h1.ping("10.0.0.2", count=2)
        other = {"p1": "p2", "p2": "p1"}
        ours = lambda: {port: switch.port_statistics("br0", port) for port in other}
        theirs = lambda: {port: middle.counters(port)["rx"] for port in other}
        before_ours, before = ours(), theirs()
        h1.iperf(h2, "10.0.0.2", seconds=2)
        if state(switch)[2] < 1000:
            raise Failure(f"the kernel forwarded nothing: {state(switch)}")

        def same():
            now_ours, now = ours(), theirs()
            for port, way_out in other.items():
                for what in ("Packets", "Bytes"):
                    came = now[port][what.lower()] - before[port][what.lower()]
                    counted = now_ours[port]["rx" + what] - before_ours[port]["rx" + what]
                    left = now_ours[way_out]["tx" + what] - before_ours[way_out]["tx" + what]
                    if not came == counted == left:
                        same.why = f"{port}: {came} {what} came in, {counted} were counted, {left} as sent by {way_out}"
                        return False
            return True

        eventually(same, lambda: same.why)
        flows = [line for line in switch.dpctl("dump-flows").splitlines() if "kernel_path:yes" in line]
        rules = json.loads(switch.ofctl("dump-flows", "br0", "--format", "json"))
        rule_packets = sum(int(rule["statistics"]["packets"]) for rule in rules["rules"])
        received = sum(ours()[port]["rxPackets"] for port in ("p1", "p2"))
        if len(flows) != 2 or rule_packets != received:
            raise Failure(f"the rule counted {rule_packets} packets of {received}; flows in the kernel:\n" + "\n".join(flows))
        # Idle connections leave the kernel, and take nothing with them.
        eventually(lambda: in_kernel(switch) == 0, "idle connections leave", deadline=15)
        eventually(same, lambda: same.why)
        switch.check_balance()


def scene_kernel_path_ends_with_a_change_of_rules():
    with Lab() as lab:
        switch, middle, (h1, h2) = two_hosts(lab)
        stream(switch, h1, h2)
        switch.ofctl("add-flow", "br0", "priority=100,tcp,actions=drop")
        check_silence(middle, "p2", "after a rule that drops them was acknowledged")
        switch.ofctl("del-flows", "br0", "tcp")
        eventually(lambda: in_kernel(switch) == 2, "the stream is back in the kernel", deadline=30)
        # Elsewhere instead of nowhere: with an action that the kernel path does not do.
        switch.ofctl("add-flow", "br0", "priority=100,tcp,in_port=p1,actions=mod_nw_tos:32,output:p2")
        before = state(switch)[2]
        eventually(lambda: in_kernel(switch) == 1, "one direction is left")
        h2_before = h2.counters("eth0")["rx"]["bytes"]
        eventually(lambda: h2.counters("eth0")["rx"]["bytes"] - h2_before > 10 << 20, "the daemon forwards the stream")
        if state(switch)[2] < before:
            raise Failure("packets that the kernel had forwarded are forgotten")
        switch.check_balance()


def scene_kernel_path_can_be_switched_off():
    with Lab() as lab:
        switch, middle, (h1, h2) = two_hosts(lab)
        stream(switch, h1, h2)
        switch.vsctl("set", "open_vswitch", ".", "other_config:kernel-path=false")
        why, connections, before = state(switch)
        time.sleep(0.5)
        if not why.startswith("off") or connections or state(switch)[2] != before:
            raise Failure(f"kernel-path=false, and yet: {state(switch)} after {(why, connections, before)}")
        seen = h2.counters("eth0")["rx"]["bytes"]
        eventually(lambda: h2.counters("eth0")["rx"]["bytes"] - seen > 10 << 20, "the daemon forwards the stream")
        refused = switch.tool("vsctl", "set", "open_vswitch", ".", "other_config:kernel-path=maybe", check=False)
        if refused.returncode == 0 or "true or false" not in refused.stderr:
            raise Failure(f"kernel-path=maybe: {refused.stderr}")
        switch.stop()
        switch.start()
        if not state(switch)[0].startswith("off"):
            raise Failure("kernel-path=false is forgotten by a restart")
        switch.vsctl("set", "open_vswitch", ".", "other_config:kernel-path=true")
        eventually(lambda: in_kernel(switch) >= 1, lambda: f"it is on again: {state(switch)}", deadline=30)


def scene_kernel_path_ends_with_its_ports():
    with Lab() as lab:
        switch, middle, (h1, h2) = two_hosts(lab)
        sender = stream(switch, h1, h2)
        switch.vsctl("del-port", "br0", "p2")
        check_silence(middle, "p2", "after the port was deleted")
        if in_kernel(switch) != 0:
            raise Failure(f"connections of a deleted port: {state(switch)}")
        switch.vsctl("add-port", "br0", "p2")
        eventually(lambda: in_kernel(switch) >= 2, "the new port has a kernel path", deadline=30)
        switch.ofctl("mod-port", "br0", "p2", "down")
        eventually(lambda: in_kernel(switch) == 0, lambda: f"connections of a port that is down: {state(switch)}")
        switch.ofctl("mod-port", "br0", "p2", "up")
        eventually(lambda: in_kernel(switch) >= 2, "the port that is up again has a kernel path", deadline=30)
        # The device vanishes with its other end.
        h2.run("ip", "link", "del", "eth0")
        eventually(lambda: in_kernel(switch) == 0, lambda: f"connections of a device that is gone: {state(switch)}")
        sender.terminate()
        sender.wait()
        switch.check_balance()


def scene_kernel_path_ends_with_the_daemon():
    with Lab() as lab:
        switch, middle, (h1, h2) = two_hosts(lab)
        stream(switch, h1, h2)
        switch.stop(signal.SIGKILL)
        check_silence(middle, "p2", "after the daemon was killed")
        switch.start()
        eventually(lambda: in_kernel(switch) >= 2, "after a restart the kernel has the stream again", deadline=30)
        switch.stop()
        check_silence(middle, "p2", "after the daemon was ended")


def scene_kernel_path_keeps_to_the_mtu():
    with Lab() as lab:
        switch, middle, (h1, h2) = two_hosts(lab)
        stream(switch, h1, h2)
        too_big = lambda: sum(int(row["packets"]) for row in json.loads(switch.dpctl("drops", "--format", "json")).get("drops", [])
                              if row["reason"] == "tx_too_big")
        switch.vsctl("set", "interface", "p2", "mtu_request=1000")
        check_silence(middle, "p2", "after its MTU was made smaller than they are")
        eventually(lambda: too_big() > 0, "frames that are too long are dropped, with a reason")
        switch.vsctl("set", "interface", "p2", "mtu_request=1500")
        eventually(lambda: in_kernel(switch) >= 2 and sent(middle, "p2") > 0, "the stream goes on", deadline=30)
        switch.check_balance()


def scene_kernel_path_with_ipv6():
    with Lab() as lab:
        switch, middle, (h1, h2) = two_hosts(lab, addresses=("fd00::{}/64",))
        h1.ping("fd00::2", count=2)
        h1.iperf(h2, "fd00::2", seconds=2)
        flows = [line for line in switch.dpctl("dump-flows").splitlines() if "kernel_path:yes" in line]
        if len(flows) != 2 or not all("0x86dd" in line for line in flows) or state(switch)[2] < 1000:
            raise Failure("flows in the kernel:\n" + switch.dpctl("dump-flows"))
        switch.check_balance()


def scene_kernel_path_with_tags():
    """h1 and h2 in VLAN 10, each on a bridge of his own; between the bridges a third that only passes tagged frames on."""
    with Lab() as lab:
        switch, middle, (h1, h2) = two_hosts(lab)
        for port in ("t1", "t2"):
            middle.run("ip", "link", "add", port, "type", "veth", "peer", "name", "u" + port[1])
            for device in (port, "u" + port[1]):
                middle.run("ip", "link", "set", device, "up")
        switch.vsctl("del-port", "br0", "p2")
        switch.vsctl("add-br", "br1", "--", "add-port", "br1", "u1", "--", "add-port", "br1", "u2")
        switch.vsctl("add-br", "br2", "--", "add-port", "br2", "t2", "--", "add-port", "br2", "p2", "--", "set", "port", "p2", "tag=10")
        switch.vsctl("add-port", "br0", "t1", "--", "set", "port", "p1", "tag=10")
        h1.ping("10.0.0.2", count=2)
        before = switch.port_statistics("br1", "u1"), middle.counters("u1")["rx"]
        h1.iperf(h2, "10.0.0.2", seconds=2)
        flows = [line for line in switch.dpctl("dump-flows").splitlines() if "kernel_path:yes" in line]
        # Where tags come or go is the daemon's.
        if len(flows) != 2 or not all("vlan(vid=10" in line for line in flows):
            raise Failure("flows in the kernel:\n" + switch.dpctl("dump-flows"))
        after = switch.port_statistics("br1", "u1"), middle.counters("u1")["rx"]
        for what in ("Packets", "Bytes"):
            counted = after[0]["rx" + what] - before[0]["rx" + what]
            came = after[1][what.lower()] - before[1][what.lower()]
            if counted != came:
                raise Failure(f"u1: {what} {counted} counted of {came}")
        switch.check_balance()


def scene_kernel_path_beside_another_program():
    """A TC filter of the host's at the same ingress sees every packet, and what it does with it changes nothing for us."""
    with Lab() as lab:
        switch, middle, (h1, h2) = two_hosts(lab)
        if middle.run("tc", "qdisc", "add", "dev", "p1", "clsact", check=False).returncode != 0:
            raise Missing("the kernel has no clsact queueing discipline")
        h1.ping("10.0.0.2", count=2)
        for action in ("pass", "drop"):
            filters = ["dev", "p1", "ingress", "pref", "1", "handle", "1", "matchall", "action", action]
            if middle.run("tc", "filter", "replace", *filters, check=False).returncode != 0:
                raise Missing("the kernel has no TC classifier matchall")
            arrived, hits = middle.counters("p1")["rx"]["packets"], state(switch)[2]
            h1.iperf(h2, "10.0.0.2", seconds=2)
            arrived = middle.counters("p1")["rx"]["packets"] - arrived
            shown = json.loads(middle.run("tc", "-s", "-j", "filter", "show", "dev", "p1", "ingress").stdout)
            seen = max(act["stats"]["packets"] for row in shown for act in row.get("options", {}).get("actions", []))
            if state(switch)[2] - hits < 1000 or not arrived - 5 <= seen <= arrived + 5:
                raise Failure(f"{action}: the other program saw {seen} packets of {arrived}; {state(switch)}")
        switch.check_balance()


ANNOUNCE = """
import socket, sys
mac = bytes.fromhex("020000000001")
arp = bytes.fromhex("0001080006040001") + mac + socket.inet_aton("10.0.0.1") + bytes(6) + socket.inet_aton("10.0.0.1")
port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
port.bind(("eth0", 0))
print("ready", flush=True)
sys.stdin.readline()
port.send(b"\\xff" * 6 + mac + b"\\x08\\x06" + arp)
"""


def scene_kernel_path_lets_a_host_move():
    """A host whose stream the kernel forwards moves to another port, where it says so once: what was counted late of the stream must
    not take its address back."""
    with Lab() as lab:
        switch, middle, (h1, h2) = two_hosts(lab)
        h3 = lab.host("h3")
        h3.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        lab.wire(h3, "eth0", middle, "p3")
        h3.run("ip", "link", "set", "eth0", "up")
        switch.vsctl("add-port", "br0", "p3")
        stream(switch, h1, h2)

        def place():
            entries = [line.split() for line in switch.ofctl("fdb-show", "br0").splitlines()]
            return next((int(entry[0]) for entry in entries if "02:00:00:00:00:01" in entry), None)

        if place() != 1:
            raise Failure(f"the host is at port {place()}, not at 1, before it moves")
        announcer = h3.start("python3", "-c", ANNOUNCE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        announcer.stdout.readline()
        h1.run("ip", "link", "set", "eth0", "down")
        announcer.communicate("now\n")  # before the stream's last packets are counted
        eventually(lambda: place() == 3, "the host is learned where it has moved")
        # Counters are given to rules and addresses every second or so.
        until = time.monotonic() + 3
        while time.monotonic() < until:
            if place() != 3:
                raise Failure(f"the host was taken back to port {place()}")
            time.sleep(0.05)
