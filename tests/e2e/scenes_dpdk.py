"""Ports of type dpdk: captures replayed and written by net_pcap; real kernel packets through net_af_packet and net_tap; restarts.

DPDK runs without huge pages here, and never touches a PCI device. In a build without DPDK the scenes say so.
"""
import re

from lab import Failure, Lab, eventually, run
from port_kinds import MissingKind, is_missing
from scenes_ports import get, read_pcap, statistics, udp_frame, write_pcap
from scenes_switching import three_hosts

SMALL = "dpdk-mbufs=8192"
EXTRA = '"--no-huge -m 512"'


def start_dpdk(switch):
    """DPDK starts with memory of its own."""
    switch.vsctl("set", "open_vswitch", ".", f"other_config:dpdk-extra={EXTRA}")
    probe = switch.tool("vsctl", "add-port", "br0", "probe", "--", "set", "interface", "probe", "type=dpdk",
                        'options:dpdk-devargs="net_null99,no-rx=1"', f"options:{SMALL}", check=False)
    if is_missing(probe.stderr):
        raise MissingKind(probe.stderr.strip())
    if probe.returncode != 0:
        raise Failure(f"DPDK does not start: {probe.stderr}")
    switch.vsctl("del-port", "br0", "probe")


def add_port(switch, name, devargs, number, *options):
    switch.vsctl("add-port", "br0", name, "type=dpdk", f"dpdk-devargs={devargs}", SMALL, f"ofport_request={number}", *options)


def readdressed(frame):
    return bytes.fromhex("020000000099") + frame[6:]


def scene_dpdk_replays_and_writes_captures():
    with Lab() as lab:
        switch = lab.switch(lab.host("sw"))
        switch.vsctl("add-br", "br0", "fail_mode=secure")
        start_dpdk(switch)
        played, sent = lab.directory / "played.pcap", lab.directory / "sent.pcap"
        frames = [udp_frame(i % 5, b"x" * i) for i in range(200)]
        write_pcap(played, frames)
        switch.rules("br0", "in_port=1,udp,actions=set_field:02:00:00:00:00:99->eth_dst,output:2")
        add_port(switch, "out", f"net_pcap2,tx_pcap={sent}", 2)
        add_port(switch, "in", f"net_pcap1,rx_pcap={played}", 1)

        def check(count):
            eventually(lambda: statistics(switch, "br0", "out")["txPackets"] >= count,
                       lambda: f"{count} packets come out: {statistics(switch, 'br0', 'out')}\n{switch.dpctl('drops')}")

        check(200)
        rx = statistics(switch, "br0", "in")
        if rx["rxPackets"] != 200 or rx["rxBytes"] != sum(map(len, frames)):
            raise Failure(f"statistics of in: {rx}")
        if get(switch, "in", "status:driver_name") != "net_pcap" or get(switch, "in", "error") != "[]":
            raise Failure(switch.vsctl("list", "interface", "in"))
        switch.check_balance()
        switch.vsctl("del-port", "br0", "out")  # writes what is left
        got = read_pcap(sent)
        if sorted(got) != sorted(map(readdressed, frames)):
            raise Failure(f"{len(got)} frames were captured, or others than are right")
        for flow in range(5):
            wanted = [readdressed(frame) for frame in frames[flow::5]]
            if [frame for frame in got if frame in wanted] != wanted:
                raise Failure("the packets of a flow changed places")
        # A restart brings the ports back, and so does adding one again.
        add_port(switch, "out", f"net_pcap2,tx_pcap={sent}", 2)
        switch.stop()
        switch.start()
        check(200)
        # What a port was made from is gone at the next start: it waits, says why, and the others work.
        switch.stop()
        played.unlink()
        switch.start()
        if "dpdk-devargs" not in get(switch, "in", "error") or "played.pcap" not in get(switch, "in", "error"):
            raise Failure(f"no reason is shown for in: {get(switch, 'in', 'error')}")
        if get(switch, "out", "error") != "[]":
            raise Failure(f"out is in error: {get(switch, 'out', 'error')}")
        write_pcap(lab.directory / "new.pcap", frames)
        (lab.directory / "new.pcap").rename(played)  # it tries again and again: no half-written file
        switch.vsctl("--timeout", "10", "wait-until", "interface", "in", "error=[]")
        check(200)


def runs_dpdk(switch):
    """Whether DPDK's environment is up in the daemon: it has a thread for interrupts then."""
    names = run("ps", "-L", "-o", "comm=", "-p", switch.process.pid).stdout.split()  # threads may come and go meanwhile
    return any(name.startswith(("eal-", "dpdk-")) for name in names)


def scene_dpdk_sleeps_until_a_port_asks():
    with Lab() as lab:
        middle = lab.host("sw")
        switch = lab.switch(middle)
        lab.wire(lab.host("h1"), "eth0", middle, "p1")
        switch.vsctl("add-br", "br0", "--", "add-port", "br0", "p1", "--", "set", "open_vswitch", ".", f"other_config:dpdk-extra={EXTRA}")
        switch.stop()
        switch.start()
        done = switch.tool("vsctl", "add-port", "br0", "d0", "type=dpdk", check=False)  # no device is named
        if done.returncode == 0 or runs_dpdk(switch) or "dpdk:" in switch.log():
            raise Failure(f"DPDK was started for nobody: {done.stderr}\n{switch.log()}")
        start_dpdk(switch)
        if not runs_dpdk(switch):
            raise Failure("this test does not recognise DPDK")


def scene_dpdk_bad_devices_leave_nothing_behind():
    with Lab() as lab:
        switch = lab.switch(lab.host("sw"))
        switch.vsctl("add-br", "br0")
        start_dpdk(switch)
        for devargs, reason in (("net_nul0", "net_nul0"), ("net_pcap0,rx_pcap=/no/such/file", "No such file"),
                                ("net_af_packet0,iface=nosuch", "No such device"), ("0000:ff:1f.7", "without PCI")):
            done = switch.tool("vsctl", "add-port", "br0", "d0", "type=dpdk", f"dpdk-devargs={devargs}", SMALL, check=False)
            if done.returncode != 1 or reason not in done.stderr or "d0" not in done.stderr:
                raise Failure(f"{devargs}: exit status {done.returncode}, {done.stderr}")
            if "d0" in switch.vsctl("list-ports", "br0"):
                raise Failure(f"{devargs}: the port is there")
        add_port(switch, "d0", "net_null0,no-rx=1", 1)
        done = switch.tool("vsctl", "add-port", "br0", "d1", "type=dpdk", "dpdk-devargs=net_null0", SMALL, check=False)
        if done.returncode == 0 or "port d0 has the device" not in done.stderr:
            raise Failure(f"a device was given to two ports: {done.stderr}")
        if re.search(r"dpdk.*PCI", switch.log()):
            raise Failure(f"PCI devices were looked at:\n{switch.log()}")


def scene_dpdk_carries_ping_and_tcp():
    with Lab() as lab:
        switch, middle, hosts = three_hosts(lab)
        start_dpdk(switch)
        # h1 and h2 reach the switch through DPDK, h3 through the kernel as before.
        for i in (1, 2):
            # DPDK gets frames as they are on a wire: no checksum left for later, no segments to be cut.
            hosts[i - 1].run("ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", check=False)
            switch.vsctl("del-port", "br0", f"p{i}")
            add_port(switch, f"dp{i}", f"net_af_packet{i},iface=p{i},blocksz=4096,framesz=2048,framecnt=1024", i)
        h1, h2, h3 = hosts
        h3.run("ethtool", "-K", "eth0", "tx", "off", check=False)
        for a, address in ((h1, "10.0.0.2"), (h2, "10.0.0.1"), (h1, "10.0.0.3"), (h3, "10.0.0.1")):
            a.ping(address, count=3)
            a.ping(address, size=1472, dont_fragment=True)
        h1.iperf(h2, "10.0.0.2", seconds=1)
        h1.iperf(h3, "10.0.0.3", seconds=1)
        h3.iperf(h1, "10.0.0.1", seconds=1)
        switch.check_balance()


def host_behind_netdev(lab, *addresses, mtu=None):
    """A switch with DPDK, its host, and a host with these addresses on its netdev port p1."""
    middle = lab.host("sw")
    switch = lab.switch(middle)
    switch.vsctl("add-br", "br0")
    start_dpdk(switch)
    h1 = lab.host("h1")
    lab.wire(h1, "eth0", middle, "p1")
    h1.address("eth0", *addresses, mtu=mtu)
    switch.vsctl("add-port", "br0", "p1")
    return switch, middle, h1


def scene_dpdk_tap_meets_the_kernel():
    with Lab() as lab:
        switch, middle, h1 = host_behind_netdev(lab, "10.0.0.1/24")
        h1.run("ethtool", "-K", "eth0", "tx", "off", check=False)
        add_port(switch, "d0", "net_tap0,iface=dtap0", 5)
        middle.address("dtap0", "10.0.0.9/24")
        h1.ping("10.0.0.9", count=3)
        switch.vsctl("del-port", "br0", "d0")
        if middle.run("ip", "link", "show", "dtap0", check=False).returncode == 0:
            raise Failure("the TAP device of a deleted port is still there")
        h1.ping("10.0.0.9", expect=False, timeout=0.3)
        switch.check_balance()


def checksum_errors(host):
    """How many segments and datagrams the host's kernel found wrong checksums in."""
    rows = {}
    for line in host.run("cat", "/proc/net/snmp").stdout.splitlines():
        name, *values = line.split()
        rows.setdefault(name, []).append(values)
    return sum(int(dict(zip(*rows[protocol]))["InCsumErrors"]) for protocol in ("Tcp:", "Udp:"))


def scene_dpdk_device_finishes_frames():
    """Partial checksums and super-frames go to a device that can complete and cut them, as they are; without, the switch does it."""
    with Lab() as lab:
        # net_tap takes the Ethernet header for a part of its MTU, when it cuts.
        switch, middle, h1 = host_behind_netdev(lab, "10.0.0.1/24", "fd00::1/64", mtu=1480)
        frame_size = {}
        for offloads in ("true", "false"):
            add_port(switch, "d0", "net_tap0,iface=dtap0", 5, f"dpdk-tx-offloads={offloads}")
            middle.address("dtap0", "10.0.0.9/24", "fd00::9/64", mac="02:00:00:00:00:09")
            told = switch.vsctl("get", "interface", "d0", "status:tx_offloads").strip().strip('"')
            if (told == "none") != (offloads == "false"):
                raise Failure(f"dpdk-tx-offloads={offloads}: {told}")
            h1.ping("10.0.0.9", count=2)
            h1.iperf(middle, "10.0.0.9", seconds=1)
            counters = statistics(switch, "br0", "d0")
            frame_size[offloads] = counters["txBytes"] / counters["txPackets"]
            h1.iperf(middle, "10.0.0.9", seconds=1, options=("-u", "-b", "20M", "-l", "1000"))
            arrived = middle.counters("dtap0")["rx"]
            h1.iperf(middle, "fd00::9", seconds=1)
            now = middle.counters("dtap0")["rx"]
            if (now["bytes"] - arrived["bytes"]) / (now["packets"] - arrived["packets"]) > 1514:
                raise Failure(f"dpdk-tx-offloads={offloads}: IPv6 is not cut: {arrived} {now}")
            if checksum_errors(middle) != 0:
                raise Failure(f"dpdk-tx-offloads={offloads}: {checksum_errors(middle)} wrong checksums arrived")
            switch.vsctl("del-port", "br0", "d0")
        if not frame_size["true"] > 1514 > frame_size["false"]:
            raise Failure(f"bytes of a frame that went to the device: {frame_size}")
        switch.check_balance()
