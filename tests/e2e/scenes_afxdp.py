"""Ports of type afxdp: hosts behind veths, with nothing set up at their end; tags, tunnels, queues, devices that come and go.

Without AF_XDP in the kernel or in the build the scenes say so.
"""
import re
import signal
import subprocess

from lab import Failure, Lab, eventually, least
from port_kinds import Missing, MissingKind, is_missing
from scenes_ports import get, statistics

SMALL = "umem-frames=8192"


def status(switch, port, key):
    found = re.search(rf'[{{ ]"?{key}"?="?([^",}}]*)', switch.vsctl("get", "interface", port, "status"))
    return found.group(1) if found else None


def xdp_hosts(lab, count, *options, kinds=None):
    """A switch with bridge br0, and hosts 10.0.0.1... on its ports p1..."""
    middle = lab.host("sw")
    middle.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    switch = lab.switch(middle)
    switch.vsctl("add-br", "br0")
    hosts = []
    for i in range(1, count + 1):
        host = lab.host(f"h{i}")
        lab.wire(host, "eth0", middle, f"p{i}")
        host.run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
        host.address("eth0", f"10.0.0.{i}/24", mac=f"02:00:00:00:00:0{i}")
        hosts.append(host)
        kind = kinds[i - 1] if kinds else "afxdp"
        words = [f"type={kind}", *options, SMALL] if kind == "afxdp" else []
        done = switch.tool("vsctl", "add-port", "br0", f"p{i}", *words, check=False)
        if is_missing(done.stderr):
            raise MissingKind(done.stderr.strip())
        if done.returncode != 0:
            raise Failure(f"port p{i}: {done.stderr}")
    return switch, middle, hosts


def no_bad_checksums(host):
    """Nothing that came in had a wrong checksum."""
    text = host.run("cat", "/proc/net/snmp").stdout
    for proto in ("Tcp", "Udp"):
        names, values = (line.split()[1:] for line in text.splitlines() if line.startswith(f"{proto}:"))
        wrong = int(dict(zip(names, values)).get("InCsumErrors", 0))
        if wrong:
            raise Failure(f"{host.name}: {wrong} {proto} checksums were wrong")


def udp_echo(lab, client, server, address, port=7777):
    """One datagram each way."""
    listener = server.start("timeout", "10", "python3", "-c",
                            f"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', {port})); "
                            "d, a = s.recvfrom(2000); s.sendto(d, a)")
    eventually(lambda: f":{port}" in server.run("ss", "-lun").stdout, "the echo server listens")
    client.run("python3", "-c",
               f"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3); "
               f"s.sendto(b'x' * 999, ('{address}', {port})); assert s.recv(2000) == b'x' * 999")
    listener.wait(timeout=5)


def scene_afxdp_carries_ping_udp_and_tcp_as_they_come():
    for mode in ("native", "generic"):
        with Lab() as lab:
            switch, _, (h1, h2, h3) = xdp_hosts(lab, 3, f"xdp-mode={mode}")
            if mode == "generic":  # here the kernel does not keep super-frames away
                for host in (h1, h2, h3):
                    host.run("ethtool", "-K", "eth0", "tso", "off", "gso", "off")
            if status(switch, "p1", "xdp-mode") != mode:
                raise Failure(switch.vsctl("list", "interface", "p1"))
            for a, address in ((h1, "10.0.0.2"), (h2, "10.0.0.1"), (h3, "10.0.0.1")):
                a.ping(address, count=3)
                a.ping(address, size=1472, dont_fragment=True)
            h1.ping("10.0.0.2", size=8000)
            udp_echo(lab, h1, h2, "10.0.0.2")
            rate = h1.iperf(h2, "10.0.0.2", seconds=1)
            print(f"        {mode}: {rate / 1e9:.2f} Gbit/s")
            if rate < least(50e6):
                raise Failure(f"{mode}: TCP: {rate / 1e6:.0f} Mbit/s")
            for host in (h1, h2, h3):
                no_bad_checksums(host)
            switch.check_balance()


def scene_afxdp_ports_pass_packets_without_a_copy():
    with Lab() as lab:
        switch, _, (h1, h2) = xdp_hosts(lab, 2)
        h1.ping("10.0.0.2", count=2)
        before = {(p, key): int(status(switch, p, key)) for p in ("p1", "p2") for key in ("tx-in-place", "tx-copied")}
        h1.ping("10.0.0.2", count=200)
        moved = {which: int(status(switch, *which)) - count for which, count in before.items()}
        if moved["p1", "tx-in-place"] < 200 or moved["p2", "tx-in-place"] < 200:
            raise Failure(f"packets were not passed on in place: {moved}")
        if moved["p1", "tx-copied"] or moved["p2", "tx-copied"]:
            raise Failure(f"packets were copied: {moved}")
        frames = {p: statistics(switch, "br0", p) for p in ("p1", "p2")}
        if frames["p2"]["txPackets"] < 200 or frames["p1"]["rxDropped"]:
            raise Failure(f"{frames}")
        switch.check_balance()


def scene_afxdp_mixes_with_netdev_internal_and_vxlan():
    with Lab() as lab:
        switch, middle, (h1, h2) = xdp_hosts(lab, 2, kinds=["afxdp", "netdev"])
        for a, address in ((h1, "10.0.0.2"), (h2, "10.0.0.1")):
            a.ping(address, count=3)
        h1.iperf(h2, "10.0.0.2", seconds=1)
        h2.iperf(h1, "10.0.0.1", seconds=1)
        switch.vsctl("add-port", "br0", "in0", "type=internal")
        middle.address("in0", "10.0.0.9/24")
        h1.ping("10.0.0.9", count=3)
        middle.iperf(h1, "10.0.0.1", seconds=1)
        h1.iperf(middle, "10.0.0.9", seconds=1)
        # Another switch behind a tunnel, with a host on AF_XDP.
        far = lab.host("sw2")
        lab.wire(middle, "u0", far, "u0")
        middle.address("u0", "192.168.0.1/24", mtu=2000)
        far.address("u0", "192.168.0.2/24", mtu=2000)
        h3 = lab.host("h3")
        lab.wire(h3, "eth0", far, "p1")
        h3.address("eth0", "10.0.0.3/24")
        other = lab.switch(far)
        other.vsctl("add-br", "br0", "--", "add-port", "br0", "p1", "type=afxdp", SMALL, "--", "add-port", "br0", "vx0", "type=vxlan",
                    "remote_ip=192.168.0.1", "key=5")
        switch.vsctl("add-port", "br0", "vx0", "type=vxlan", "remote_ip=192.168.0.2", "key=5")
        h1.ping("10.0.0.3", count=3)
        h3.ping("10.0.0.2", count=3)
        h1.iperf(h3, "10.0.0.3", seconds=1)
        h3.iperf(h1, "10.0.0.1", seconds=1)
        for host in (h1, h2, h3):
            no_bad_checksums(host)
        switch.check_balance()
        other.check_balance()


RECEIVE = """
import hashlib, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.create_server((sys.argv[1], int(sys.argv[2])), family=family) as server:
    connection, _ = server.accept()
    digest = hashlib.sha256()
    while data := connection.recv(1 << 20):
        digest.update(data)
    print(digest.hexdigest())
"""
SEND = """
import hashlib, random, socket, sys
data = random.Random(int(sys.argv[2])).randbytes(int(sys.argv[3]))
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    connection.sendall(data)
print(hashlib.sha256(data).hexdigest())
"""


def transfer(sender, receiver, address, sizes):
    """Sends random bytes over TCP, one connection for each size, all at once; what arrives is compared by its hash."""
    ports = range(9000, 9000 + len(sizes))
    options = {"stdout": subprocess.PIPE, "text": True}
    sinks = [receiver.start("timeout", "60", "python3", "-c", RECEIVE, address, port, **options) for port in ports]
    listening = lambda: receiver.run("ss", "-Hltn").stdout
    eventually(lambda: all(f":{port} " in listening() for port in ports), "the receivers listen")
    sources = [sender.start("timeout", "60", "python3", "-c", SEND, address, port, size, **options) for port, size in zip(ports, sizes)]
    sent = [source.communicate(timeout=60)[0] for source in sources]
    received = [sink.communicate(timeout=60)[0] for sink in sinks]
    if sent != received or not all(len(digest) == 65 for digest in sent):
        raise Failure(f"{sender.name} to {address}: sent {sent}, received {received}")


def received(host, device):
    """Frames and bytes that the host's kernel got by the device."""
    read = lambda name: int(host.run("cat", f"/sys/class/net/{device}/statistics/{name}").stdout)
    return read("rx_packets"), read("rx_bytes")


def scene_afxdp_hands_super_frames_to_ports_that_take_them():
    """Segments that come in by AF_XDP leave together by a veth and by a TAP; by another AF_XDP port as they came."""
    with Lab() as lab:
        switch, middle, (h1, h2, h3) = xdp_hosts(lab, 3, kinds=["afxdp", "netdev", "afxdp"])
        switch.vsctl("add-port", "br0", "in0", "type=internal")
        middle.address("in0", "10.0.0.9/24")
        for host, address in ((h1, "fd00::1/64"), (h2, "fd00::2/64")):
            host.run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0")
            host.run("ip", "address", "add", address, "dev", "eth0", "nodad")
        size = 20 << 20
        for checksums in ("on", "off"):  # left to the device, which is us; or complete
            h1.run("ethtool", "-K", "eth0", "tx", checksums)
            for receiver, device, address, port in ((h2, "eth0", "10.0.0.2", "p2"), (h2, "eth0", "fd00::2", "p2"),
                                                    (middle, "in0", "10.0.0.9", "in0")):
                frames, octets = received(receiver, device)
                before = statistics(switch, "br0", port)["txPackets"]
                transfer(h1, receiver, address, [size] * 3)
                frames, octets = received(receiver, device)[0] - frames, received(receiver, device)[1] - octets
                segments = statistics(switch, "br0", port)["txPackets"] - before
                print(f"        checksums {checksums}, to {address}: {segments} segments in {frames} frames of {octets // frames} bytes")
                if octets < 3 * size or segments < 3 * size // 1500:
                    raise Failure(f"too little arrived: {octets} bytes, {segments} segments")
                if frames > segments / 2:
                    raise Failure(f"{segments} segments left as {frames} frames")
        copied = int(status(switch, "p3", "tx-copied"))
        transfer(h1, h3, "10.0.0.3", [1 << 20, 1 << 20])
        copied = int(status(switch, "p3", "tx-copied")) - copied
        if copied > 20:  # a broadcast of somebody else may be
            raise Failure(f"{copied} packets were copied on the way to an AF_XDP port")
        transfer(h2, h1, "10.0.0.1", [size, 1 << 20])
        for host in (h1, h2, h3):
            no_bad_checksums(host)
        switch.check_balance()


def scene_afxdp_tags():
    with Lab() as lab:
        switch, _, (h1, h2, h3) = xdp_hosts(lab, 3)
        switch.vsctl("set", "port", "p1", "tag=10", "--", "set", "port", "p2", "tag=20", "--", "set", "port", "p3", "trunks=10,30")
        h1.ping("10.0.0.2", expect=False, timeout=0.5)
        h3.run("ip", "address", "flush", "dev", "eth0")
        tagger = lab.switch(h3)
        tagger.vsctl("add-br", "br3", "--", "set", "port", "br3", "tag=10", "--", "add-port", "br3", "eth0")
        h3.address("br3", "10.0.0.3/24")
        h1.ping("10.0.0.3", count=3)
        h3.ping("10.0.0.1", count=3)
        h3.ping("10.0.0.2", expect=False, timeout=0.5)
        h1.iperf(h3, "10.0.0.3", seconds=1)
        h3.iperf(h1, "10.0.0.1", seconds=1)
        no_bad_checksums(h1)
        no_bad_checksums(h3)
        switch.check_balance()


def scene_afxdp_several_queues():
    with Lab() as lab:
        middle = lab.host("sw")
        switch = lab.switch(middle)
        switch.vsctl("add-br", "br0", "--", "set", "open_vswitch", ".", "other_config:forwarding-threads=2")
        hosts = []
        for i in (1, 2):
            host = lab.host(f"h{i}")
            lab.wire(host, "eth0", middle, f"p{i}")
            for where, device in ((host, "eth0"), (middle, f"p{i}")):
                if where.run("ethtool", "-L", device, "rx", "2", "tx", "2", check=False).returncode != 0:
                    raise Missing("the kernel's veth has one queue")
            host.address("eth0", f"10.0.0.{i}/24", mac=f"02:00:00:00:00:0{i}")
            done = switch.tool("vsctl", "add-port", "br0", f"p{i}", "type=afxdp", SMALL, check=False)
            if is_missing(done.stderr):
                raise MissingKind(done.stderr.strip())
            if done.returncode != 0 or status(switch, f"p{i}", "n_rxq") != "2":
                raise Failure(f"{done.stderr} {switch.vsctl('list', 'interface', f'p{i}')}")
            hosts.append(host)
        h1, h2 = hosts
        h1.ping("10.0.0.2", count=3)
        rate = h1.iperf(h2, "10.0.0.2", seconds=1, options=("-P", "8"))
        print(f"        two queues, two threads, 8 flows: {rate / 1e9:.2f} Gbit/s")
        h2.iperf(h1, "10.0.0.1", seconds=1, options=("-P", "4"))
        no_bad_checksums(h1)
        no_bad_checksums(h2)
        # Fewer queues than the device has: the hint says what that means.
        switch.vsctl("set", "interface", "p1", "options:n_rxq=1")
        if status(switch, "p1", "n_rxq") != "1" or not status(switch, "p1", "hint-queues"):
            raise Failure(switch.vsctl("list", "interface", "p1"))
        switch.vsctl("remove", "interface", "p1", "options", "n_rxq")
        h1.ping("10.0.0.2", count=3)
        switch.check_balance()


def scene_afxdp_device_goes_and_returns_under_traffic():
    with Lab() as lab:
        switch, middle, (h1, h2, h3) = xdp_hosts(lab, 3)
        number = get(switch, "p2", "ofport")
        steady = h1.start("ping", "-q", "-i", "0.01", "-c", "400", "-W", "2", "10.0.0.3", stdout=subprocess.PIPE, text=True)
        flood = h1.start("ping", "-q", "-f", "-W", "1", "10.0.0.2", stdout=subprocess.DEVNULL)
        for _ in range(3):
            h2.run("ip", "link", "del", "eth0")
            eventually(lambda: "p2 does not exist" in get(switch, "p2", "error"), lambda: f"p2 is in error: {get(switch, 'p2', 'error')}")
            lab.wire(h2, "eth0", middle, "p2")
            h2.address("eth0", "10.0.0.2/24", mac="02:00:00:00:00:02")
            eventually(lambda: get(switch, "p2", "error") == "[]", lambda: f"p2 recovers: {get(switch, 'p2', 'error')}")
            h1.ping("10.0.0.2", count=2)
        flood.send_signal(signal.SIGINT)
        flood.wait(timeout=5)
        middle.run("ip", "link", "set", "p2", "down")
        eventually(lambda: "p2 is down" in get(switch, "p2", "error"), "p2 is down")
        middle.run("ip", "link", "set", "p2", "up")
        eventually(lambda: get(switch, "p2", "error") == "[]", lambda: f"p2 recovers: {get(switch, 'p2', 'error')}")
        h1.ping("10.0.0.2", count=2)
        output, _ = steady.communicate(timeout=30)
        if " 0% packet loss" not in output:
            raise Failure(f"the others lost packets meanwhile:\n{output}")
        if get(switch, "p2", "ofport") != number:
            raise Failure("p2 has another number")
        switch.check_balance()


def scene_afxdp_restart_kill_and_removal_leave_nothing_on_the_device():
    with Lab() as lab:
        switch, middle, (h1, h2) = xdp_hosts(lab, 2)
        has_program = lambda: "xdp" in middle.run("ip", "link", "show", "p1").stdout
        h1.ping("10.0.0.2")
        if not has_program():
            raise Failure(middle.run("ip", "link", "show", "p1").stdout)
        switch.stop(signal.SIGKILL)
        eventually(lambda: not has_program(), "the XDP program goes with the daemon")
        switch.start()
        eventually(lambda: get(switch, "p1", "error") == "[]" and get(switch, "p2", "error") == "[]",
                   lambda: f"ports come back: {switch.vsctl('show')}")
        h1.ping("10.0.0.2", count=3)
        switch.vsctl("del-port", "br0", "p1")
        eventually(lambda: not has_program(), "the XDP program goes with the port")
        # The same device as another kind of port, and back.
        switch.vsctl("add-port", "br0", "p1")
        h1.ping("10.0.0.2", count=3)
        switch.vsctl("set", "interface", "p1", "type=afxdp")
        h1.ping("10.0.0.2", count=3)
        for option, reason in (("xdp-mode=native-with-zerocopy", "zero copy"), ("n_rxq=7", "n_rxq is 7"), ("n_rxq_desc=100", "power of two")):
            done = switch.tool("vsctl", "set", "interface", "p1", f"options:{option}", check=False)
            if done.returncode == 0 or reason not in done.stderr:
                raise Failure(f"{option}: exit status {done.returncode}: {done.stderr}")
            h1.ping("10.0.0.2")
        switch.check_balance()
