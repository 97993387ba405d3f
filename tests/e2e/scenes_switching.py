"""L2 switching between hosts: learning, VLANs, patch ports, internal ports."""
import json
import re
import signal
import subprocess

from lab import Failure, Lab, eventually, least
from port_kinds import every_port_kind


def three_hosts(lab):
    """Three hosts on one switch, on ports p1, p2, p3; 10.0.0.1 to .3."""
    middle = lab.host("sw")
    # Without IPv6 neither the hosts nor the kernel's own ends of the wires say anything unasked.
    middle.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    hosts = []
    switch = lab.switch(middle)
    switch.vsctl("add-br", "br0")
    for i in (1, 2, 3):
        host = lab.host(f"h{i}")
        lab.wire(host, "eth0", middle, f"p{i}")
        host.run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
        host.address("eth0", f"10.0.0.{i}/24", mac=f"02:00:00:00:00:0{i}")
        switch.vsctl("add-port", "br0", f"p{i}")
        hosts.append(host)
    return switch, middle, hosts


@every_port_kind()
def scene_learning_between_three_hosts():
    with Lab() as lab:
        switch, _, (h1, h2, h3) = three_hosts(lab)
        h1.ping("10.0.0.2", count=3)
        # Learned: a third host sees nothing of what the two say to each other from now on.
        before = h3.counters("eth0")["rx"]["packets"]
        h1.ping("10.0.0.2", count=20)
        seen = h3.counters("eth0")["rx"]["packets"] - before
        if seen > 2:  # an ARP refresh may be flooded
            raise Failure(f"h3 saw {seen} packets of a conversation between h1 and h2")
        h1.ping("10.0.0.3")
        h3.ping("10.0.0.2")
        table = switch.ofctl("fdb-show", "br0")
        for i in (1, 2, 3):
            if f"02:00:00:00:00:0{i}" not in table:
                raise Failure(f"address of h{i} was not learned:\n{table}")
        dump = switch.ofctl("dump-flows", "br0")
        count = int(re.search(r"n_packets=(\d+).*NORMAL", dump).group(1))
        if count < 50:
            raise Failure(f"the rule counted {count} packets:\n{dump}")
        switch.check_balance()


@every_port_kind()
def scene_vlan_access_and_trunk():
    with Lab() as lab:
        switch, middle, (h1, h2, h3) = three_hosts(lab)
        switch.vsctl("set", "port", "p1", "tag=10")
        switch.vsctl("set", "port", "p2", "tag=20")
        h1.ping("10.0.0.2", expect=False, timeout=0.5)
        switch.vsctl("set", "port", "p2", "tag=10")
        h1.ping("10.0.0.2", count=3)
        # h3 is on a trunk and speaks VLAN 10 with a tag: a switch of its own puts and takes the tags (not every kernel has
        # VLAN devices), and tcpdump says what is on the wire.
        switch.vsctl("set", "port", "p3", "trunks=10,30")
        h3.run("ip", "address", "flush", "dev", "eth0")
        tagger = lab.switch(h3)
        tagger.vsctl("add-br", "br3", "--", "set", "port", "br3", "tag=10", "--", "add-port", "br3", "eth0", "type=netdev")
        h3.address("br3", "10.0.0.3/24")
        wire = h3.start("tcpdump", "-n", "-e", "-c", "2", "-i", "eth0", "vlan", "10", "and", "icmp", stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE, text=True)
        eventually(lambda: "listening" in wire.stderr.readline(), "tcpdump listens")
        h1.ping("10.0.0.3", count=3)
        seen, _ = wire.communicate(timeout=10)
        if "vlan 10" not in seen:
            raise Failure(f"no VLAN 10 tag on the trunk:\n{seen}")
        h3.ping("10.0.0.2", count=3)
        rate = h1.iperf(h3, "10.0.0.3", seconds=1)
        if rate < least(100e6):
            raise Failure(f"TCP from an access port to a trunk: {rate / 1e6:.0f} Mbit/s")
        switch.vsctl("set", "port", "p3", "trunks=30")
        h1.ping("10.0.0.3", expect=False, timeout=0.5)
        switch.check_balance()


@every_port_kind()
def scene_rule_change_reaches_the_next_packet():
    with Lab() as lab:
        switch, _, (h1, h2, _) = three_hosts(lab)
        h1.ping("10.0.0.2", count=2)
        switch.ofctl("add-flow", "br0", "priority=100,icmp,actions=drop")
        h1.ping("10.0.0.2", expect=False, timeout=0.5)
        switch.ofctl("--strict", "del-flows", "br0", "priority=100,icmp")
        h1.ping("10.0.0.2", count=2)
        drops = switch.dpctl("drops")
        if "of_pipeline" not in drops:
            raise Failure(f"the dropped ping has no named reason:\n{drops}")
        switch.check_balance()


@every_port_kind()
def scene_internal_port_with_address():
    with Lab() as lab:
        switch, middle, (h1, _, _) = three_hosts(lab)
        middle.address("br0", "10.0.0.254/24")
        h1.ping("10.0.0.254", count=3)
        rate = h1.iperf(middle, "10.0.0.254", seconds=1)
        if rate < least(100e6):
            raise Failure(f"TCP to the local port: {rate / 1e6:.0f} Mbit/s")
        mac = json.loads(middle.run("ip", "-j", "link", "show", "br0").stdout)[0]["address"]
        switch.stop()
        # The device outlives the daemon with its address.
        if "10.0.0.254/24" not in middle.run("ip", "address", "show", "br0").stdout:
            raise Failure("br0 lost its address when the daemon stopped")
        switch.start()
        after = json.loads(middle.run("ip", "-j", "link", "show", "br0").stdout)[0]["address"]
        if mac != after:
            raise Failure(f"br0 changed its MAC address over a restart: {mac} to {after}")
        h1.ping("10.0.0.254", count=3)
        switch.check_balance()


@every_port_kind()
def scene_patch_ports_join_bridges():
    with Lab() as lab:
        switch, middle, (h1, h2, _) = three_hosts(lab)
        switch.vsctl("del-port", "br0", "p2")
        switch.vsctl("add-br", "br1", "--", "add-port", "br1", "p2",
                     "--", "add-port", "br0", "to1", "type=patch", "peer=to0",
                     "--", "add-port", "br1", "to0", "type=patch", "peer=to1")
        h1.ping("10.0.0.2", count=5)
        eventually(lambda: switch.port_statistics("br0", "to1")["txPackets"] >= 5, "the patch port counts what crosses it")
        switch.vsctl("del-port", "br1", "to0")
        h1.ping("10.0.0.2", expect=False, timeout=0.5)
        if "to0" not in switch.vsctl("show"):
            raise Failure("vsctl show does not say that the peer is missing")
        switch.check_balance()


# DPDK does not say that the device under a net_af_packet has gone.
@every_port_kind(but=("dpdk",))
def scene_device_leaves_and_returns_under_traffic():
    with Lab() as lab:
        switch, middle, (h1, h2, h3) = three_hosts(lab)
        h1.ping("10.0.0.3")
        before = switch.vsctl("get", "interface", "p2", "ofport")
        background = h1.start("ping", "-q", "-i", "0.02", "10.0.0.3", stdout=subprocess.PIPE, text=True)
        h2.run("ip", "link", "del", "eth0")
        eventually(lambda: "does not exist" in switch.vsctl("show"), "vsctl show says that p2's device is gone")
        lab.wire(h2, "eth0", middle, "p2")
        h2.address("eth0", "10.0.0.2/24", mac="02:00:00:00:00:02")
        switch.vsctl("--timeout", "10", "wait-until", "interface", "p2", "error=[]")
        h1.ping("10.0.0.2", count=3)
        after = switch.vsctl("get", "interface", "p2", "ofport")
        if before != after:
            raise Failure(f"p2 changed its OpenFlow port number: {before} to {after}")
        background.send_signal(signal.SIGINT)
        output, _ = background.communicate(timeout=30)
        transmitted, received = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", output).groups())
        if received < transmitted - 1:  # the last one was on its way
            raise Failure(f"traffic between h1 and h3 suffered from p2's changes:\n{output}")
        switch.check_balance()

