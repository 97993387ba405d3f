"""The ports of vswitch in a comparison: how frames get to them and from them, for each kind of port.

A port of kind `dummy` is fed through the API and writes a capture file. `netdev`, `afxdp` and `afxdp-generic` are at one end of
a veth pair, of which the test holds the other one. `dpdk` is a TAP of DPDK (net_tap), whose host is the test; net_af_packet would not do, since the
kernel puts fragments together for it, and it turns outer tags of 802.1ad into those of 802.1Q. What such a wire cannot carry is
said here, exactly, for each direction: `arrives` and `leaves`.
"""
import dataclasses
import errno
import pathlib
import platform
import struct

import device_tail
import lab
import packets
import pcap
import topology

MTU = 1500
FAR_MTU = 2000  # of the test's ends: what is too long for the switch's end has to get to it
TAGS = (b"\x81\0", b"\x88\xa8")
# Ports whose frames arrive with their outermost tag held aside, as from a VLAN device or a network card; the others get it in the frame.
TAGS_ASIDE = ("p1", "p2", "q1")
PROGRAM = pathlib.Path(__file__).with_name("hold_tags_aside.bpf.c")
# One port of each kind, and packets that go from kind to kind.
MIXED = {"p1": "netdev", "p2": "afxdp", "p3": "dpdk", "p4": "dummy", "q1": "afxdp-generic", "q2": "netdev"}
NAMES = ("dummy", "netdev", "afxdp", "afxdp-generic", "dpdk", "mixed")


@dataclasses.dataclass(frozen=True)
class Message:
    """What a host hands to its device at once: a frame, or several that a device is to make of a super-frame."""

    port: str
    frames: tuple  # as they are on the wire
    way: str = "whole"  # "partial": their checksums are left to a device; "super": they are one super-frame
    flow: int = 0  # whose order is to stay


def is_lost_tag(frame):
    """Whether a receiving kernel drops the frame because it ends within two bytes after a tag, which it wants to hold aside."""
    return len(frame) < 20 and frame[12:14] in TAGS


def _header_size(frame):
    at = 14
    while at + 4 <= len(frame) and frame[at - 2 : at] in TAGS:
        at += 4
    return at


class Port:
    """A port of the switch; the base of all kinds."""

    ways = ("whole",)  # by which it gets frames: Message.way

    def __init__(self, plan):
        self.plan = plan
        self.name = plan.name
        self.tail = None  # of what leaves

    def leaves(self, frame):
        """Whether a frame of any length that is sent is seen: the switch sends what fits the MTU with its tags."""
        return len(frame) <= MTU + _header_size(frame)

    def arrives(self, frame):
        """What the switch receives of a frame, None if nothing."""
        return frame


class DummyPort(Port):
    def __init__(self, plan, directory, receive):
        super().__init__(plan)
        self.capture = directory / f"{plan.name}.pcap"
        self.receive = receive
        self.type, self.options = "dummy", {"tx_pcap": str(self.capture)}

    def connect(self):
        self.tail = pcap.Tail(self.capture)

    def inject(self, messages):
        frames = [frame for message in messages for frame in message.frames]
        self.receive(self.name, frames)
        return len(frames)

    def close(self):
        pass


class LocalPort(Port):
    """A bridge's own port, a device of the host that the switch lives in."""

    def __init__(self, bridge, host):
        super().__init__(topology.PortPlan(bridge, bridge, topology.LOCAL))
        self.tail = device_tail.DeviceTail(host.namespace, bridge)

    def leaves(self, frame):
        return super().leaves(frame) and not is_lost_tag(frame)

    def close(self):
        self.tail.close()


class DevicePort(Port):
    """One whose frames are sent to and captured from a device of the kernel."""

    super_frames_arrive = False

    def __init__(self, plan):
        super().__init__(plan)
        self.sender = None

    def attach(self, host):
        self.sender = device_tail.DeviceSender(host.namespace, self.name)
        self.tail = device_tail.DeviceTail(host.namespace, self.name)

    def leaves(self, frame):
        return super().leaves(frame) and not is_lost_tag(frame)

    def inject(self, messages):
        """Returns how many packets will arrive."""
        arriving = 0
        for message in messages:
            if message.way == "super":
                self.sender.send(*super_frame(message.frames))
                arriving += 1 if self.super_frames_arrive else len(message.frames)
                continue
            for frame in message.frames:
                arriving += self.arrives(frame) is not None
                try:
                    self.sender.send(*(partial_frame(frame) if message.way == "partial" else (frame,)))
                except OSError as error:
                    if error.errno != errno.ENOBUFS or self.arrives(frame) is not None:  # that is how a veth refuses it
                        raise
        return arriving

    def close(self):
        for end in (self.sender, self.tail):
            if end:
                end.close()


class WiredPort(DevicePort):
    """At a veth pair."""

    ways = ("whole", "partial", "super")
    takes_tags_aside = True

    def __init__(self, plan, at, host, far, program):
        super().__init__(plan)
        self.far = far
        at.wire(host, self.name, far, self.name)
        # What leaves is cut, and its checksums completed, by the kernel in front of the wire.
        host.run("ethtool", "-K", self.name, "tx", "off", "tso", "off", "gso", "off", "tx-udp-segmentation", "off")
        far.run("ip", "link", "set", self.name, "mtu", FAR_MTU)
        # One processor takes what arrives, whichever sent it, so that the order is that of sending.
        far.run("sh", "-c", f"echo 1 > /sys/class/net/{self.name}/queues/rx-0/rps_cpus")
        self.tags_aside = self.takes_tags_aside and self.name in TAGS_ASIDE and self._hold_tags_aside(program)

    def _hold_tags_aside(self, program):
        """Whether it could be arranged."""
        for command in (("qdisc", "add", "dev", self.name, "clsact"),
                        ("filter", "add", "dev", self.name, "egress", "bpf", "direct-action", "object-file", program, "section", "tc")):
            done = self.far.run("tc", *command, check=False)
            if done.returncode != 0:
                print(f"not tested: tags held aside on {self.name}: {done.stderr.strip()}")
                return False
        return True

    def connect(self):
        self.attach(self.far)

    def arrives(self, frame):
        aside = 4 if self.tags_aside and frame[12:14] in TAGS else 0
        return frame if len(frame) - aside <= MTU + 14 + 4 else None  # longer than any that a veth takes


class NetdevPort(WiredPort):
    type, options = "netdev", {}
    super_frames_arrive = True

    def arrives(self, frame):
        return None if is_lost_tag(frame) else super().arrives(frame)

    def leaves(self, frame):
        # Packet sockets take 4 bytes beyond the MTU for an 802.1Q tag in front, and for no other.
        return super().leaves(frame) and len(frame) <= MTU + 14 + (4 if frame[12:14] == TAGS[0] else 0)


class AfxdpPort(WiredPort):
    """The kernel keeps veth from passing super-frames on, and cuts them."""

    type, options = "afxdp", {"umem-frames": "8192"}


class GenericAfxdpPort(WiredPort):
    """The kernel drops super-frames here, and tags that are held aside are lost (docs/afxdp.md): hosts keep from both."""

    type, options = "afxdp", {"umem-frames": "8192", "xdp-mode": "generic"}
    ways = ("whole", "partial")
    takes_tags_aside = False


WIRED = {"netdev": NetdevPort, "afxdp": AfxdpPort, "afxdp-generic": GenericAfxdpPort}


class DpdkPort(DevicePort):
    type = "dpdk"

    def __init__(self, plan, host):
        super().__init__(plan)
        self.host = host
        self.options = {"dpdk-devargs": f"net_tap{topology.PORTS.index(plan)},iface={self.name}", "dpdk-mbufs": "8192"}

    def connect(self):
        self.host.run("ip", "link", "set", self.name, "mtu", FAR_MTU, "up")
        self.attach(self.host)

    def leaves(self, frame):
        return super().leaves(frame) and len(frame) <= MTU + 14 + 8  # net_tap sends no more


def make_program(directory):
    """The program that holds tags aside."""
    program = directory / "hold_tags_aside.o"
    lab.run("clang", "-target", "bpf", "-O2", "-g", f"-I/usr/include/{platform.machine()}-linux-gnu", "-c", PROGRAM, "-o", program)
    return program


def _places(frame):
    """(IP header, L4 header, protocol) of a frame of FrameMaker.burst()."""
    ip = _header_size(frame)
    if frame[ip] >> 4 == 4:
        return ip, ip + 20, frame[ip + 9]
    return ip, ip + 40, frame[ip + 6]


def partial_frame(frame):
    """(frame, vnet header) in which the checksum is that of the pseudo header alone."""
    ip, l4, protocol = _places(frame)
    offset = 16 if protocol == 6 else 6
    addresses = frame[ip + 12 : ip + 20] if l4 == ip + 20 else frame[ip + 8 : ip + 40]
    value = ~packets.checksum(addresses + struct.pack("!II", len(frame) - l4, protocol)) & 0xFFFF
    at = l4 + offset
    header = device_tail.VNET.pack(device_tail.NEEDS_CSUM, device_tail.GSO_NONE, 0, 0, l4, offset)
    return frame[:at] + struct.pack("!H", value) + frame[at + 2 :], header


def super_frame(frames):
    """(frame, vnet header) that a device has to cut into these."""
    first = bytearray(frames[0])
    ip, l4, protocol = _places(frames[0])
    end = l4 + (20 if protocol == 6 else 8)
    size = len(first) - end
    joined = bytes(first[:end]) + b"".join(frame[end:] for frame in frames)
    joined = bytearray(joined)
    is_v4 = l4 == ip + 20
    struct.pack_into("!H", joined, ip + (2 if is_v4 else 4), len(joined) - (ip if is_v4 else l4))
    if is_v4:
        joined[ip + 10 : ip + 12] = b"\0\0"
        struct.pack_into("!H", joined, ip + 10, packets.checksum(bytes(joined[ip:l4])))
    if protocol == 17:
        struct.pack_into("!H", joined, l4 + 4, len(joined) - l4)
    whole, _ = partial_frame(bytes(joined))
    kind = device_tail.GSO_UDP_L4 if protocol == 17 else device_tail.GSO_TCPV4 if is_v4 else device_tail.GSO_TCPV6
    return whole, device_tail.VNET.pack(device_tail.NEEDS_CSUM, kind, end, size, l4, 16 if protocol == 6 else 6)
