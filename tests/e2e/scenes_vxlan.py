"""VXLAN: between two of our switches, and between ours and the kernel, over IPv4 and IPv6."""
import re

import port_kinds
from lab import Failure, Lab, eventually, least
from port_kinds import every_port_kind

UNDERLAY = {4: ("192.0.2.1", "192.0.2.2", 24), 6: ("2001:db8::1", "2001:db8::2", 64)}


class Overlay:
    """Two hosts on an underlay, each with one workload; 10.1.0.1 and 10.1.0.2."""

    def __init__(self, lab, family=4, workload_mtu=1430):
        self.lab = lab
        self.addresses = UNDERLAY[family]
        self.hosts = [lab.host("u1"), lab.host("u2")]
        self.workloads = [lab.host("w1"), lab.host("w2")]
        lab.wire(self.hosts[0], "u", self.hosts[1], "u")
        for i in (0, 1):
            self.hosts[i].address("u", f"{self.addresses[i]}/{self.addresses[2]}")
            lab.wire(self.workloads[i], "eth0", self.hosts[i], "p")
            self.workloads[i].address("eth0", f"10.1.0.{i + 1}/24", f"fd00:1::{i + 1}/64", mtu=workload_mtu,
                                      mac=f"02:00:00:00:01:0{i + 1}")

    def our_switch(self, i, *options):
        switch = self.lab.switch(self.hosts[i])
        switch.vsctl("add-br", "br0", "fail_mode=secure", "--", "add-port", "br0", "p", "ofport_request=1", "--", "add-port", "br0", "vx0",
                     "type=vxlan", f"remote_ip={self.addresses[1 - i]}", "key=flow", "ofport_request=2", *options)
        switch.rules("br0", "in_port=1,actions=set_field:100->tun_id,output:2", "in_port=2,tun_id=100,actions=output:1")
        return switch

    def kernel_switch(self, i, *options):
        host = self.hosts[i]
        host.run("ip", "link", "add", "vx0", "type", "vxlan", "id", "100", "remote", self.addresses[1 - i], "local", self.addresses[i],
                 "dstport", "4789", *options)
        host.run("ip", "link", "add", "br0", "type", "bridge")
        for device in ("vx0", "p"):
            host.run("ip", "link", "set", device, "master", "br0")
            host.run("ip", "link", "set", device, "up")
        host.run("ip", "link", "set", "br0", "up")

    def check_traffic(self):
        # A thread that polls DPDK's packet sockets for ever takes its core from the hosts.
        least_rate = 1e6 if port_kinds.current.name == "dpdk" else least(100e6)
        w1, w2 = self.workloads
        w1.ping("10.1.0.2", count=1)  # the very first packet must not be lost
        w2.ping("10.1.0.1", count=5)
        w1.ping("fd00:1::2", count=3)
        rate = w1.iperf_both_ways(w2, "10.1.0.2")
        if rate < least_rate:
            raise Failure(f"TCP between w1 and w2: {rate / 1e6:.0f} Mbit/s")


@every_port_kind()
def scene_between_two_of_ours():
    for family in (4, 6):
        with Lab() as lab:
            overlay = Overlay(lab, family)
            switches = [overlay.our_switch(0), overlay.our_switch(1)]
            overlay.check_traffic()
            for switch in switches:
                dump = switch.ofctl("dump-flows", "br0")
                if min(int(n) for n in re.findall(r"n_packets=(\d+)", dump)) < 10:
                    raise Failure(f"counters did not move:\n{dump}")
                flows = switch.dpctl("dump-flows")
                if "set(tunnel(" not in flows or "tun_id=0x64" not in flows:
                    raise Failure(f"datapath flows do not show the tunnel:\n{flows}")
                switch.check_balance()


@every_port_kind()
def scene_against_the_kernel():
    tunnels = [(4, (), ()), (6, (), ())]
    if port_kinds.current.lookup == "all":  # how flows are found has no part in checksums
        tunnels += [(4, ("csum=true",), ("udpcsum",)), (4, ("csum=false",), ("noudpcsum",)),
                    (6, ("csum=false",), ("udp6zerocsumrx", "udp6zerocsumtx"))]
    for family, ours, kernel in tunnels:
        with Lab() as lab:
            overlay = Overlay(lab, family)
            switch = overlay.our_switch(0, *ours)
            overlay.kernel_switch(1, *kernel)
            overlay.check_traffic()
            switch.check_balance()


@every_port_kind()
def scene_mtu_edge():
    with Lab() as lab:
        overlay = Overlay(lab, 4, workload_mtu=1500)
        switch = overlay.our_switch(0)
        overlay.kernel_switch(1)
        w1 = overlay.workloads[0]
        w1.ping("10.1.0.2")
        # 1500 of the underlay less outer IPv4, UDP, VXLAN and inner Ethernet: 1450 bytes of inner IP, 1422 of ICMP payload.
        w1.ping("10.1.0.2", size=1422, dont_fragment=True)
        w1.ping("10.1.0.2", size=1423, dont_fragment=True, expect=False, timeout=0.5)
        drops = switch.dpctl("drops")
        if "tunnel_too_big" not in drops:
            raise Failure(f"the packet that did not fit has no named reason:\n{drops}")
        switch.check_balance()


@every_port_kind()
def scene_wrong_vni_is_counted():
    with Lab() as lab:
        overlay = Overlay(lab, 4)
        switch = overlay.our_switch(0)
        switch.vsctl("del-port", "vx0", "--", "add-port", "br0", "vx0", "type=vxlan", f"remote_ip={overlay.addresses[1]}", "key=5",
                     "ofport_request=2")
        overlay.kernel_switch(1)
        overlay.workloads[1].ping("10.1.0.1", expect=False, timeout=0.5)
        eventually(lambda: "tunnel_unknown_vni" in switch.dpctl("drops"), "unknown VNI is a named drop")
        switch.check_balance()


@every_port_kind()
def scene_deleting_one_tunnel_keeps_the_other():
    with Lab() as lab:
        overlay = Overlay(lab, 4)
        switch = overlay.our_switch(0)
        overlay.kernel_switch(1)
        overlay.workloads[0].ping("10.1.0.2")
        switch.vsctl("add-port", "br0", "vx1", "type=vxlan", "remote_ip=192.0.2.99", "key=flow")
        switch.vsctl("del-port", "br0", "vx1")
        overlay.workloads[0].ping("10.1.0.2", count=3)
