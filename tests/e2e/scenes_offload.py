"""Super-frames: large TCP of the host's own stack, out of an internal port, into a veth and into a tunnel.

The internal port's device offers segmentation offload, so the stack hands over frames of up to 64 kB. They must come into the
switch as they are, go as far as the way out can take them, and arrive as the bytes that were sent.
"""
import hashlib
import random
import signal
import subprocess

import port_kinds
from lab import Failure, Lab, eventually
from port_kinds import every_lookup, every_port_kind

SIZE = 48 << 20
RECEIVE = """
import hashlib, socket, sys
listener = socket.create_server((sys.argv[1], 9000), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
connection, _ = listener.accept()
digest, size = hashlib.sha256(), 0
while data := connection.recv(1 << 20):
    digest.update(data)
    size += len(data)
print(size, digest.hexdigest())
"""
SEND = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 9000))
with open(sys.argv[2], "rb") as file:
    connection.sendfile(file)
connection.shutdown(socket.SHUT_WR)
connection.recv(1)
"""


def send_file(lab, sender, receiver, address):
    """Sends SIZE random bytes by TCP; Failure unless exactly these arrive."""
    payload = random.Random(7).randbytes(SIZE)
    path = lab.directory / "payload"
    path.write_bytes(payload)
    output = open(lab.directory / "received", "w+")
    process = receiver.start("python3", "-c", RECEIVE, address, stdout=output)
    eventually(lambda: ":9000" in receiver.run("ss", "-ltn").stdout, f"{receiver.name} listens")
    sender.run("python3", "-c", SEND, address, path)
    process.wait(timeout=20)
    output.seek(0)
    arrived = output.read().strip()
    if arrived != f"{SIZE} {hashlib.sha256(payload).hexdigest()}":
        raise Failure(f"{SIZE} bytes were sent; what arrived is something else: {arrived}")


def check_few(switch, port, counter, mss, before):
    """The port's counter moved by far less than one per segment: super-frames passed."""
    packets = switch.port_statistics("br0", port)[counter] - before
    if not 0 < packets < SIZE / mss / 4:
        raise Failure(f"{port}: {counter} moved by {packets}; {SIZE} bytes are {SIZE // mss} segments of {mss}")


@every_port_kind()
def scene_super_frames_out_of_an_internal_port_into_a_veth():
    with Lab() as lab:
        middle, far = lab.host("m"), lab.host("f")
        lab.wire(far, "eth0", middle, "p1")
        far.address("eth0", "10.0.0.2/24", "fd00::2/64")
        switch = lab.switch(middle)
        switch.vsctl("add-br", "br0", "--", "add-port", "br0", "p1")
        middle.address("br0", "10.0.0.1/24", "fd00::1/64")
        for address, mss in (("10.0.0.2", 1448), ("fd00::2", 1428)):
            middle.ping(address)
            came, went = (switch.port_statistics("br0", port)[counter] for port, counter in (("br0", "rxPackets"), ("p1", "txPackets")))
            send_file(lab, middle, far, address)
            check_few(switch, "br0", "rxPackets", mss, came)
            if port_kinds.current.super_frames:
                check_few(switch, "p1", "txPackets", mss, went)
        switch.check_balance()


@every_lookup
def scene_super_frames_out_of_an_internal_port_into_vxlan():
    with Lab() as lab:
        hosts = [lab.host("l"), lab.host("r")]
        lab.wire(hosts[0], "u", hosts[1], "u")
        switches = []
        for i, host in enumerate(hosts):
            host.address("u", f"192.0.2.{i + 1}/24")
            switch = lab.switch(host)
            switch.vsctl("add-br", "br0", "--", "add-port", "br0", "vx0", "type=vxlan", f"remote_ip=192.0.2.{2 - i}", "key=7")
            host.address("br0", f"10.0.0.{i + 1}/24", mtu=1450)
            switches.append(switch)
        hosts[0].ping("10.0.0.2")
        before = switches[0].port_statistics("br0", "br0")["rxPackets"]
        send_file(lab, hosts[0], hosts[1], "10.0.0.2")
        check_few(switches[0], "br0", "rxPackets", 1398, before)
        for switch in switches:
            switch.check_balance()


COLLECT = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(2)]
for number, end in enumerate(sockets):
    end.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
    end.bind((sys.argv[1], 9000 + number))
    end.settimeout(10)
for end in sockets:
    for number in range(int(sys.argv[2])):
        data = end.recv(2000)
        if data != number.to_bytes(4, "big") * 5:
            sys.exit(f"datagram {number}: {data.hex()}")
print("all")
"""
SCATTER = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(2)]
count, run = int(sys.argv[2]), 12
for number, end in enumerate(sockets):
    end.connect((sys.argv[1], 9000 + number))
for start in range(0, count, run):
    for end in sockets:
        for number in range(start, min(start + run, count)):
            end.send(number.to_bytes(4, "big") * 5)
"""


def datagrams(switch, sender, receiver, device, address, count):
    """Numbered datagrams of two flows, in runs, that find the switch asleep and come to it in full batches: each arrives as it was
    sent, in its flow's order. Returns how many frames the receiver's device took for them."""
    process = receiver.start("python3", "-c", COLLECT, address, count, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    eventually(lambda: ":9001" in receiver.run("ss", "-lun").stdout, f"{receiver.name} listens")
    before = receiver.counters(device)["rx"]["packets"]
    switch.process.send_signal(signal.SIGSTOP)
    try:
        sender.run("python3", "-c", SCATTER, address, count)
    finally:
        switch.process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=30)
    if output.strip() != "all":
        raise Failure(f"datagrams to {address}: {output}")
    return receiver.counters(device)["rx"]["packets"] - before


@every_port_kind()
def scene_datagrams_leave_in_trains_and_arrive_as_sent():
    count = 600 if port_kinds.current.super_frames else 108  # twice as many fit the rings of a switch that is stopped
    with Lab() as lab:
        middle, near, far = lab.host("m"), lab.host("n"), lab.host("f")
        lab.wire(near, "eth0", middle, "p1")
        lab.wire(far, "eth0", middle, "p2")
        near.address("eth0", "10.0.0.1/24", "fd00::1/64")
        far.address("eth0", "10.0.0.2/24", "fd00::2/64")
        switch = lab.switch(middle)
        switch.vsctl("add-br", "br0", "--", "add-port", "br0", "p1", "--", "add-port", "br0", "p2")
        middle.address("br0", "10.0.0.3/24", "fd00::3/64")
        for receiver, device, addresses in ((far, "eth0", ("10.0.0.2", "fd00::2")), (middle, "br0", ("10.0.0.3", "fd00::3"))):
            for address in addresses:
                near.ping(address)
                frames = datagrams(switch, near, receiver, device, address, count)
                if port_kinds.current.super_frames and frames > count:  # two flows of `count` each, in runs of 12
                    raise Failure(f"{address}: {2 * count} datagrams came in {frames} frames")
        switch.check_balance()


# Tunnels whose ends are devices of the kernel: the family of their underlay, and what to add to `ip link add TUNNEL type`.
VXLAN = ("vxlan", "id", "100", "dstport", "4789", "remote", "{remote}", "local", "{local}")
KERNEL_TUNNELS = {
    "vxlan": (4, VXLAN),
    "vxlan with checksums": (4, (*VXLAN, "udpcsum")),
    "vxlan over IPv6, with checksums": (6, VXLAN),
    "geneve": (4, ("geneve", "id", "100", "remote", "{remote}")),
    "geneve over IPv6, with checksums": (6, ("geneve", "id", "100", "remote", "{remote}")),
    "gretap": (4, ("gretap", "remote", "{remote}", "local", "{local}")),
    "ipip": (4, ("ipip", "mode", "any", "remote", "{remote}", "local", "{local}")),
}


def make_kernel_tunnel(hosts, tunnel):
    """False: this kernel has no such devices, and need not have."""
    family, device = KERNEL_TUNNELS[tunnel]
    addresses = "192.0.2.{}" if family == 4 else "2001:db8::{}"
    for i, host in enumerate(hosts):
        words = (word.format(local=addresses.format(i + 1), remote=addresses.format(2 - i)) for word in device)
        done = host.run("ip", "link", "add", "tunnel", "type", *words, check=device == VXLAN)
        if "Unknown device type" in done.stderr:
            return False
        host.address("tunnel", f"10.1.0.{i + 1}/24", f"fd00:1::{i + 1}/64", mtu=1400)
    return True


def send_through_kernel_tunnel(lab, hosts, tunnel):
    if not make_kernel_tunnel(hosts, tunnel):
        return
    for address in ("10.1.0.2", "fd00:1::2"):
        try:
            send_file(lab, *hosts, address)
        except Failure as failure:
            raise Failure(f"{tunnel}, to {address}: {failure}") from None
    for host in hosts:
        host.run("ip", "link", "del", "tunnel")


@every_port_kind(but=("no-kernel-path",))
def scene_kernel_tunnels_through_the_switch():
    """What the kernel encapsulates crosses a veth as a super-frame with the tunnel's headers in front, which no vnet header describes."""
    whole = port_kinds.current.super_frames
    with Lab() as lab:
        middle = lab.host("m")
        hosts = [lab.host("h1"), lab.host("h2")]
        switch = lab.switch(middle)
        switch.vsctl("add-br", "br0")
        for i, host in enumerate(hosts):
            lab.wire(host, "u", middle, f"p{i + 1}")
            host.address("u", f"192.0.2.{i + 1}/24", f"2001:db8::{i + 1}/64")
            if not whole:  # checksums of what is inside a peer's tunnel are the peer's (docs/afxdp.md)
                host.run("ethtool", "-K", "u", "tx", "off")
            switch.vsctl("add-port", "br0", f"p{i + 1}")
        switch.rules("br0", "priority=0,actions=normal")
        hosts[0].ping("192.0.2.2", count=2)
        for kernel_path in ("false", "true") if whole else ("true",):
            switch.vsctl("set", "open_vswitch", ".", f"other_config:kernel-path={kernel_path}")
            for tunnel in KERNEL_TUNNELS:
                send_through_kernel_tunnel(lab, hosts, tunnel)
        for port in ("p1", "p2"):
            statistics = switch.port_statistics("br0", port)
            if statistics.get("txErrors", 0) != 0:
                raise Failure(f"{port}: {statistics}")
        switch.check_balance()
