"""Ports: devices that are missing, down, renamed or deleted; long names; injection and capture; statistics; threads."""
import json
import os
import pathlib
import re
import struct
import subprocess
import time

import port_kinds
from lab import BIN, Failure, Lab, eventually, least
from port_kinds import every_lookup, every_port_kind
from scenes_switching import three_hosts

LONG = "-is-a-name-of-63-characters".ljust(62, "x")  # after one letter


def get(switch, port, column):
    return switch.vsctl("get", "interface", port, column).strip().strip('"')


def statistics(switch, bridge, port):
    row = json.loads(switch.ofctl("--format", "json", "dump-ports", bridge, port))["ports"][0]["statistics"]
    return {name: int(value) for name, value in row.items()}


# ---------------------------------------------------------------- devices come and go


# Nothing tells when a device under DPDK goes or returns.
@every_port_kind(but=("dpdk",))
def scene_device_missing_when_the_daemon_starts():
    with Lab() as lab:
        switch, middle, (h1, h2, _) = three_hosts(lab)
        number = get(switch, "p2", "ofport")
        switch.stop()
        h2.run("ip", "link", "del", "eth0")
        switch.start()
        h1.ping("10.0.0.3")  # the others work
        if "p2 does not exist" not in get(switch, "p2", "error") or "p2 does not exist" not in switch.vsctl("show"):
            raise Failure(f"no reason is shown for p2:\n{switch.vsctl('show')}")
        lab.wire(h2, "eth0", middle, "p2")
        h2.address("eth0", "10.0.0.2/24", mac="02:00:00:00:00:02")
        switch.vsctl("--timeout", "10", "wait-until", "interface", "p2", "error=[]")
        h1.ping("10.0.0.2", count=3)
        if get(switch, "p2", "ofport") != number:
            raise Failure(f"p2 had number {number} and has {get(switch, 'p2', 'ofport')}")
        switch.check_balance()


@every_port_kind(but=("dpdk",))
def scene_device_down_renamed_and_replaced():
    with Lab() as lab:
        switch, middle, (h1, h2, _) = three_hosts(lab)
        h1.ping("10.0.0.2")
        number = get(switch, "p2", "ofport")

        def outage(what, begin, reason, end):
            begin()
            eventually(lambda: reason in get(switch, "p2", "error"), f"{what}: the error of p2 holds \"{reason}\"")
            h1.ping("10.0.0.2", expect=False, timeout=0.3)
            h1.ping("10.0.0.3")
            end()
            eventually(lambda: get(switch, "p2", "error") == "[]", lambda: f"{what}: p2 recovers: {get(switch, 'p2', 'error')}")
            h1.ping("10.0.0.2")
            if get(switch, "p2", "ofport") != number:
                raise Failure(f"{what}: p2 had number {number} and has {get(switch, 'p2', 'ofport')}")

        outage("down", lambda: middle.run("ip", "link", "set", "p2", "down"), "p2 is down", lambda: middle.run("ip", "link", "set", "p2", "up"))
        outage("renamed", lambda: middle.run("ip", "link", "set", "p2", "name", "other"), "p2 was renamed to other",
               lambda: middle.run("ip", "link", "set", "other", "name", "p2"))

        def replace():
            lab.wire(h2, "eth1", middle, "p2")
            h2.run("ip", "address", "flush", "dev", "eth0")
            h2.address("eth1", "10.0.0.2/24", mac="02:00:00:00:00:02")
            h2.run("ip", "link", "set", "eth0", "down")

        # Another device takes the name: the port is its from then on.
        outage("replaced", lambda: middle.run("ip", "link", "set", "p2", "name", "other"), "p2 was renamed to other", replace)
        # The log has each of these once, with the reason.
        told = [line.split("port p2: ", 1)[1] for line in switch.log().splitlines() if " info: port p2: " in line]
        # (A device that has just been made is down at first, and may be seen so.)
        wanted = ["device p2 is down", "works again", "device p2 was renamed to other", "works again", "device p2 was renamed to other",
                  "works again"]
        seen = [next((reason for reason in wanted if line.startswith(reason)), line) for line in told]
        if seen[:5] + seen[-1:] != wanted or len(seen) > 7:
            raise Failure("the log tells each change of p2 once:\n" + "\n".join(told))
        switch.check_balance()


@every_port_kind(but=("dpdk",))
def scene_namespace_of_the_other_end_deleted():
    with Lab() as lab:
        switch, middle, (h1, h2, _) = three_hosts(lab)
        h1.ping("10.0.0.2")
        number = get(switch, "p2", "ofport")
        h2.run("ip", "netns", "del", h2.namespace)
        eventually(lambda: "p2 does not exist" in switch.vsctl("show"), "vsctl show says that p2's device is gone", deadline=20)
        h1.ping("10.0.0.3", count=3)
        again = lab.host("h2b")
        lab.wire(again, "eth0", middle, "p2")
        again.address("eth0", "10.0.0.2/24", mac="02:00:00:00:00:02")
        eventually(lambda: get(switch, "p2", "error") == "[]", "p2 recovers")
        h1.ping("10.0.0.2", count=3)
        if get(switch, "p2", "ofport") != number:
            raise Failure(f"p2 had number {number} and has {get(switch, 'p2', 'ofport')}")
        switch.check_balance()


@every_port_kind()
def scene_mtu_and_administrative_state():
    with Lab() as lab:
        switch, middle, (h1, _, _) = three_hosts(lab)
        is_dpdk = port_kinds.current.name == "dpdk"  # which does not say what happens to the device under it, and leaves that up

        def device(name):
            return json.loads(middle.run("ip", "-j", "link", "show", name).stdout)[0]

        switch.vsctl("set", "interface", "p1", "mtu_request=1400")
        if device("p1")["mtu"] != 1400 or get(switch, "p1", "mtu") != "1400":
            raise Failure(f"mtu_request=1400: the device has {device('p1')['mtu']}, vsctl shows {get(switch, 'p1', 'mtu')}")
        h1.ping("10.0.0.2", size=1372)
        h1.ping("10.0.0.2", size=1373, expect=False, timeout=0.3)
        if "tx_too_big" not in switch.dpctl("drops"):
            raise Failure(f"the reply that is too long for p1 has no named reason:\n{switch.dpctl('drops')}")
        if not is_dpdk:
            middle.run("ip", "link", "set", "p2", "mtu", "1300")
            switch.vsctl("--timeout", "10", "wait-until", "interface", "p2", "mtu=1300")
        switch.vsctl("set", "interface", "p1", "mtu_request=1500")
        switch.ofctl("mod-port", "br0", "p1", "down")
        if not is_dpdk:
            eventually(lambda: "UP" not in device("p1")["flags"], "mod-port takes the device down")
        h1.ping("10.0.0.2", expect=False, timeout=0.3)
        switch.ofctl("mod-port", "br0", "p1", "up")
        eventually(lambda: "UP" in device("p1")["flags"] and get(switch, "p1", "error") == "[]", "mod-port takes the device up")
        h1.ping("10.0.0.2")
        switch.ofctl("mod-port", "br0", "p1", "no-receive")
        h1.ping("10.0.0.2", expect=False, timeout=0.3)
        switch.ofctl("mod-port", "br0", "p1", "receive")
        h1.ping("10.0.0.2")
        switch.check_balance()


# ---------------------------------------------------------------- long names, internal ports


def scene_names_of_63_characters():
    with Lab() as lab:
        left, right = lab.host("l"), lab.host("r")
        lab.wire(left, "u", right, "u")
        switches = []
        for i, host in enumerate((left, right)):
            host.address("u", f"192.0.2.{i + 1}/24")
            switch = lab.switch(host)
            switch.vsctl("add-br", "br0", "--", "add-port", "br0", "I" + LONG, "type=internal", "--", "add-port", "br0", "V" + LONG,
                         "type=vxlan", f"remote_ip=192.0.2.{2 - i}", "key=7", "--", "add-port", "br0", "D" + LONG, "type=dummy")
            device = re.search(r"device=([^,}]+)", get(switch, "I" + LONG, "status")).group(1).strip('"')
            host.address(device, f"10.0.0.{i + 1}/24")
            switches.append(switch)
        left.ping("10.0.0.2", count=3)
        switch = switches[0]
        switch.ofctl("add-flow", "br0", f"priority=9,in_port=D{LONG},actions=output:I{LONG}")
        if "D" + LONG not in switch.ofctl("--names", "dump-flows", "br0") or "V" + LONG not in switch.vsctl("show"):
            raise Failure("the long names are not shown whole")
        switch.dpctl("receive", "D" + LONG, "ffffffffffff0a0000000001" + "0806" + "00" * 46)
        eventually(lambda: re.search("priority=9", switch.ofctl("dump-flows", "br0")) and "n_packets=1," in switch.ofctl("dump-flows", "br0"), "the rule counts")
        switch.stop()
        switch.start()
        left.ping("10.0.0.2", count=3)
        for switch in switches:
            switch.check_balance()


@every_port_kind()
def scene_extra_internal_port():
    with Lab() as lab:
        switch, middle, (h1, _, _) = three_hosts(lab)
        switch.vsctl("add-port", "br0", "in0", "type=internal", "mac=02:00:00:00:00:99", "mtu_request=1500")
        middle.address("in0", "10.0.0.99/24")
        h1.ping("10.0.0.99", count=3)
        middle.ping("10.0.0.2", count=3)
        rate = h1.iperf_both_ways(middle, "10.0.0.99")
        if rate < least(50e6):
            raise Failure(f"TCP between h1 and in0: {rate / 1e6:.0f} Mbit/s")
        switch.stop()
        switch.start()
        shown = middle.run("ip", "address", "show", "in0").stdout
        if "10.0.0.99/24" not in shown or "02:00:00:00:00:99" not in shown:
            raise Failure(f"in0 lost its addresses over a restart:\n{shown}")
        h1.ping("10.0.0.99", count=3)
        switch.vsctl("del-port", "in0")
        if "in0" in middle.run("ip", "-br", "link").stdout:
            raise Failure("the device of a deleted internal port stays")
        switch.check_balance()


# ---------------------------------------------------------------- dummy and pcap ports


def write_pcap(path, frames):
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
        for frame in frames:
            file.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)


def read_pcap(path):
    """The frames that are in the file by now, whole."""
    data = path.read_bytes() if path.exists() else b""
    if len(data) < 24:
        return []
    magic, *_, link_type = struct.unpack("<IHHiIII", data[:24])
    if magic not in (0xa1b2c3d4, 0xa1b23c4d) or link_type != 1:
        raise Failure(f"{path}: not a pcap file of Ethernet frames")
    frames, at = [], 24
    while at < len(data):
        size = int.from_bytes(data[at + 8:at + 12], "little")
        if at + 16 + size > len(data):
            break
        frames.append(data[at + 16:at + 16 + size])
        at += 16 + size
    return frames


def udp_frame(number, payload=b"payload"):
    """A UDP packet from 10.0.0.1 to 10.0.0.2, ports 1000 + number to 2000, checksums right."""

    def checksum(data):
        data += b"\0" * (len(data) % 2)
        total = sum(struct.unpack(f"!{len(data) // 2}H", data))
        while total >> 16:
            total = (total & 0xffff) + (total >> 16)
        return ~total & 0xffff

    addresses = bytes([10, 0, 0, 1, 10, 0, 0, 2])
    udp = struct.pack("!HHHH", 1000 + number, 2000, 8 + len(payload), 0) + payload
    total = checksum(addresses + struct.pack("!HH", 17, len(udp)) + udp)
    udp = udp[:6] + struct.pack("!H", total or 0xffff) + udp[8:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + addresses
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return bytes.fromhex("0200000000020200000000010800") + head + udp


@every_lookup
def scene_dummy_port_captures_what_it_sends():
    with Lab() as lab:
        switch = lab.switch(lab.host("sw"))
        sent, injected = lab.directory / "sent.pcap", lab.directory / "injected.pcap"
        switch.vsctl("add-br", "br0", "fail_mode=secure", "--", "add-port", "br0", "d1", "type=dummy", f"rx_pcap={injected}", "ofport_request=1",
                     "--", "add-port", "br0", "d2", "type=dummy", f"pcap={sent}", "ofport_request=2")
        switch.ofctl("add-flow", "br0", "in_port=1,udp,actions=push_vlan:0x8100,set_field:4106->vlan_vid,set_field:3000->udp_dst,output:2")
        frames = [udp_frame(i, b"x" * i) for i in range(40)]
        switch.dpctl("receive", "d1", *(frame.hex() for frame in frames))
        eventually(lambda: len(read_pcap(sent)) >= 40, lambda: f"40 frames are captured: {len(read_pcap(sent))}")
        for i, (frame, out) in enumerate(zip(frames, read_pcap(sent), strict=True)):
            # The checksum moves with the port: RFC 1624.
            old, = struct.unpack("!H", frame[40:42])
            new = (~old & 0xffff) + (~2000 & 0xffff) + 3000
            while new >> 16:
                new = (new & 0xffff) + (new >> 16)
            want = frame[:12] + bytes.fromhex("8100000a") + frame[12:36] + struct.pack("!H", 3000) + frame[38:40] + struct.pack("!H", ~new & 0xffff) + frame[42:]
            if out != want:
                raise Failure(f"frame {i}:\n{out.hex()} was captured,\n{want.hex()} is right")
        if read_pcap(injected) != frames:
            raise Failure("rx_pcap does not hold what was injected")
        if statistics(switch, "br0", "d2")["txPackets"] != 40 or statistics(switch, "br0", "d1")["rxPackets"] != 40:
            raise Failure(f"statistics: {statistics(switch, 'br0', 'd1')} {statistics(switch, 'br0', 'd2')}")
        switch.vsctl("set", "interface", "d2", "options:link_state=down")
        switch.dpctl("receive", "d1", frames[0].hex())
        eventually(lambda: "port_down" in switch.dpctl("drops"), "what a port without carrier cannot send is a named drop")
        switch.check_balance()


@every_lookup
def scene_pcap_port_replays_a_file():
    with Lab() as lab:
        switch = lab.switch(lab.host("sw"))
        played, sent = lab.directory / "played.pcap", lab.directory / "sent.pcap"
        frames = [udp_frame(i % 5, b"%03d" % i) for i in range(100)]  # five flows
        write_pcap(played, frames)
        switch.vsctl("add-br", "br0", "fail_mode=secure", "--", "add-port", "br0", "out", "type=pcap", f"tx_pcap={sent}", "ofport_request=2",
                     "--", "add-port", "br0", "count", "type=pcap", "ofport_request=3")
        switch.rules("br0", "in_port=4,udp,actions=output:2", "in_port=5,udp,actions=output:3")
        # The port begins with its first packet: none is lost because the switch does not know it yet.
        switch.vsctl("add-port", "br0", "in", "type=pcap", f"rx_pcap={played}", "ofport_request=4")
        eventually(lambda: len(read_pcap(sent)) >= 100,
                   lambda: f"100 packets come out: {statistics(switch, 'br0', 'out')}\n{switch.dpctl('drops')}")
        got = read_pcap(sent)
        if sorted(got) != sorted(frames):
            raise Failure(f"{len(got)} frames were captured, or others than were played")
        for flow in range(5):
            if [frame for frame in got if frame in frames[flow::5]] != frames[flow::5]:
                raise Failure(f"the packets of a flow changed places: {[frame[42:].decode() for frame in got]}")
        # As fast as it goes: what is lost, if anything, is lost while the first packets wait for the rules, and is counted.
        switch.vsctl("add-port", "br0", "fast", "type=pcap", f"rx_pcap={played}", "loop=5000", "ofport_request=5")

        def all_there():
            out = statistics(switch, "br0", "count")["txPackets"]
            lost = sum(int(row["packets"]) for row in json.loads(switch.dpctl("drops", "--format", "json")).get("drops", [])
                       if row["port"] == "ports/fast" and row["reason"] == "upcall_queue_full")
            all_there.told = f"{out} came out, {lost} were lost waiting"
            return out + lost == 500_000 and out > 400_000

        eventually(all_there, lambda: f"500,000 packets: {all_there.told}\n{switch.dpctl('drops')}")
        switch.check_balance()
        eventually(lambda: f"n_packets={statistics(switch, 'br0', 'count')['txPackets']}," in switch.ofctl("dump-flows", "br0"),
                   lambda: f"the rules count what came out:\n{switch.ofctl('dump-flows', 'br0')}")


# ---------------------------------------------------------------- waiting, statistics, threads


def scene_wait_until():
    with Lab() as lab:
        host = lab.host("sw")
        switch = lab.switch(host)
        switch.vsctl("add-br", "br0")
        waiting = host.start(BIN / "vsctl", "--server", switch.server, "--timeout=20", "wait-until", "interface", "late", "ofport=9",
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        switch.vsctl("add-port", "br0", "late", "type=dummy", "ofport_request=8")
        if waiting.poll() is not None:
            raise Failure(f"wait-until ended before its condition: {waiting.communicate()}")
        switch.vsctl("set", "interface", "late", "ofport_request=9")
        _, error = waiting.communicate(timeout=20)
        if waiting.returncode != 0:
            raise Failure(f"wait-until: exit status {waiting.returncode}: {error}")
        start = time.monotonic()
        done = switch.tool("vsctl", "--timeout=0.5", "wait-until", "interface", "never", check=False)
        if done.returncode != 1 or len(done.stderr.splitlines()) != 1 or time.monotonic() - start > 5:
            raise Failure(f"wait-until for what does not come: exit status {done.returncode}: {done.stderr}")


@every_port_kind()
def scene_statistics_agree_with_the_other_end():
    with Lab() as lab:
        switch, middle, (h1, _, _) = three_hosts(lab)
        # What the kernel itself says on p1 (IPv6 housekeeping) is none of the switch's traffic.
        middle.run("sysctl", "-qw", "net.ipv6.conf.p1.disable_ipv6=1")
        h1.ping("10.0.0.2", count=3)
        ours, theirs = statistics(switch, "br0", "p1"), h1.counters("eth0")
        h1.ping("10.0.0.2", count=25, size=1000)
        # A veth counts a frame that it hands to XDP without its Ethernet header.
        uncounted = 14 if port_kinds.current.name == "afxdp" else 0

        def agree():
            now, there = statistics(switch, "br0", "p1"), h1.counters("eth0")
            pairs = (("rxPackets", "tx", "packets"), ("rxBytes", "tx", "bytes"), ("txPackets", "rx", "packets"), ("txBytes", "rx", "bytes"))
            there["tx"]["bytes"] += uncounted * (there["tx"]["packets"] - theirs["tx"]["packets"])
            moved = {mine: (now[mine] - ours[mine], there[way][what] - theirs[way][what]) for mine, way, what in pairs}
            agree.told = moved
            return all(mine == other for mine, other in moved.values()) and moved["rxPackets"][0] >= 25 and moved["txBytes"][0] > 25000

        eventually(agree, lambda: f"counters of p1 and of the other end moved alike: {agree.told}")
        switch.check_balance()


@every_port_kind()
def scene_threads_change_under_traffic():
    with Lab() as lab:
        switch, _, (h1, h2, h3) = three_hosts(lab)
        h1.ping("10.0.0.2")
        h3.ping("10.0.0.2")
        pings = [host.start("ping", "-q", "-i", "0.004", "-c", "500", "-W", "5", "10.0.0.2", stdout=subprocess.PIPE, text=True) for host in (h1, h3)]
        changes = 0
        while any(ping.poll() is None for ping in pings):
            threads = (2, 1, 3, 4)[changes % 4]
            switch.vsctl("set", "open_vswitch", ".", f"other_config:forwarding-threads={threads}")
            changes += 1
        for ping in pings:
            output, _ = ping.communicate(timeout=30)
            if " 0% packet loss" not in output:
                raise Failure(f"packets were lost while the number of threads changed {changes} times:\n{output}")
        if changes < 4:
            raise Failure(f"only {changes} changes")
        rate = h1.iperf(h2, "10.0.0.2", seconds=1)
        if rate < least(50e6):
            raise Failure(f"TCP after {changes} changes: {rate / 1e6:.0f} Mbit/s")
        switch.check_balance()


def scene_internal_port_with_a_queue_per_thread():
    with Lab() as lab:
        middle, far = lab.host("m"), lab.host("f")
        lab.wire(far, "eth0", middle, "p1")
        far.address("eth0", "10.0.0.2/24")
        switch = lab.switch(middle)
        switch.vsctl("set", "open_vswitch", ".", "other_config:forwarding-threads=2")
        switch.vsctl("add-br", "br0", "--", "add-port", "br0", "p1")
        middle.address("br0", "10.0.0.1/24")

        def queues():
            [link] = json.loads(middle.run("ip", "-j", "-d", "link", "show", "br0").stdout)
            return link["linkinfo"]["info_data"].get("numqueues", 1)

        for threads in (2, 3, 1, 2):
            switch.vsctl("set", "open_vswitch", ".", f"other_config:forwarding-threads={threads}")
            eventually(lambda: queues() == threads, lambda: f"{threads} queues: {queues()}")
            middle.ping("10.0.0.2", count=3)
            rate = middle.iperf(far, "10.0.0.2", seconds=1, options=["-P", "4"])
            if rate < least(50e6):
                raise Failure(f"TCP with {threads} threads: {rate / 1e6:.0f} Mbit/s")
        switch.stop()
        switch.start()
        eventually(lambda: queues() == 2, lambda: f"2 queues after a restart: {queues()}")
        eventually(lambda: middle.run("ping", "-c1", "-W1", "10.0.0.2", check=False).returncode == 0, "the bridge's address answers after a restart")
        switch.check_balance()


# A thread that has a DPDK port polls.
@every_port_kind(but=("dpdk",))
def scene_idle_switch_sleeps():
    with Lab() as lab:
        switch, _, (h1, _, _) = three_hosts(lab)
        switch.vsctl("add-port", "br0", "vx0", "type=vxlan", "remote_ip=flow", "key=flow", "--", "add-port", "br0", "in0", "type=internal",
                     "--", "set", "open_vswitch", ".", "other_config:forwarding-threads=2")
        h1.ping("10.0.0.2", count=3)

        def cpu_seconds():
            fields = pathlib.Path(f"/proc/{switch.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        used, start = cpu_seconds(), time.monotonic()
        time.sleep(1)  # this is the measurement
        share = (cpu_seconds() - used) / (time.monotonic() - start)
        print(f"        idle: {share * 100:.1f} % of a core")
        if share > 0.05:
            raise Failure(f"an idle switch uses {share * 100:.1f} % of a core")
        switch.check_balance()
