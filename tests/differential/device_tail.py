"""Sends to and captures from devices inside of a network namespace: the wires' far ends, and the bridges' own ports.

What the kernel holds aside is put back, so that frames read as they would on a wire: a VLAN tag, a checksum that is left to a
device, and a super-frame, which is cut into its segments.
"""
import ctypes
import os
import socket
import struct

import packets

SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_AUXDATA, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 8, 15, 23
ETH_P_ALL = 3
VLAN_VALID, VLAN_TPID_VALID = 1 << 4, 1 << 6
CLONE_NEWNET = 0x40000000
# struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
VNET = struct.Struct("=BBHHHH")
NEEDS_CSUM, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4 = 1, 0, 1, 4, 5
WHOLE = VNET.pack(0, GSO_NONE, 0, 0, 0, 0)


def socket_in(namespace, device, protocol):
    """A packet socket on a device of a named network namespace, with vnet headers; the calling thread stays where it is."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(there, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns to {namespace}")
        try:
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        finally:
            if libc.setns(home, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns back")
    finally:
        os.close(there)
        os.close(home)
    opened.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    opened.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    opened.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    opened.setblocking(False)
    opened.bind((device, protocol))
    return opened


class DeviceSender:
    """Lets frames go in at a device."""

    def __init__(self, namespace, device):
        self.socket = socket_in(namespace, device, 0)

    def send(self, frame, vnet=WHOLE):
        self.socket.send(vnet + frame)

    def close(self):
        self.socket.close()


class DeviceTail:
    """What the device received since the last look."""

    def __init__(self, namespace, device):
        self.socket = socket_in(namespace, device, ETH_P_ALL)

    def frames(self):
        frames = []
        while True:
            try:
                data, ancillary, _, _ = self.socket.recvmsg(1 << 18, 256)
            except BlockingIOError:
                return frames
            header, frame = VNET.unpack_from(data), data[VNET.size :]
            frames += [self._with_tag(piece, ancillary) for piece in on_the_wire(header, frame)]

    @staticmethod
    def _with_tag(data, ancillary):
        for level, kind, content in ancillary:
            if level == SOL_PACKET and kind == PACKET_AUXDATA:
                status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", content[:20])
                if status & VLAN_VALID:  # the kernel took it off
                    tpid = tpid if status & VLAN_TPID_VALID else 0x8100
                    return data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
        return data

    def close(self):
        self.socket.close()


def on_the_wire(header, frame):
    """The frames that a frame with a vnet header is on a wire: its segments, with their checksums."""
    flags, gso, _, size, start, offset = header
    if gso == GSO_NONE:
        return [_completed(frame, start, offset)] if flags & NEEDS_CSUM else [frame]
    udp = gso == GSO_UDP_L4
    end = start + (8 if udp else (frame[start + 12] >> 4) * 4)
    ip = _ip_header(frame)
    payload = frame[end:]
    cuts = [payload[at : at + size] for at in range(0, len(payload), size)]
    return [_segment(frame[:end], ip, start, n, len(cuts), size, cut, udp) for n, cut in enumerate(cuts)]


def _ip_header(frame):
    """Where it begins, in a frame that was cut so that nothing but tags is in front of it."""
    at = 12
    while frame[at : at + 2] in (b"\x81\0", b"\x88\xa8"):
        at += 4
    return at + 2


def _segment(headers, ip, l4, number, count, size, payload, udp):
    piece = bytearray(headers + payload)
    if piece[ip] >> 4 == 4:
        struct.pack_into("!H", piece, ip + 2, len(piece) - ip)
        struct.pack_into("!H", piece, ip + 4, (struct.unpack_from("!H", piece, ip + 4)[0] + number) & 0xFFFF)
        struct.pack_into("!H", piece, ip + 10, 0)
        struct.pack_into("!H", piece, ip + 10, packets.checksum(bytes(piece[ip:l4])))
        pseudo = bytes(piece[ip + 12 : ip + 20])
    else:
        struct.pack_into("!H", piece, ip + 4, len(piece) - ip - 40)
        pseudo = bytes(piece[ip + 8 : ip + 40])
    if udp:
        struct.pack_into("!H", piece, l4 + 4, len(piece) - l4)
    else:
        struct.pack_into("!I", piece, l4 + 4, (struct.unpack_from("!I", piece, l4 + 4)[0] + number * size) & 0xFFFFFFFF)
        if number + 1 < count:
            piece[l4 + 13] &= ~0x09  # FIN and PSH are of the last
        if number > 0:
            piece[l4 + 13] &= ~0x80  # CWR is of the first
    at = l4 + (6 if udp else 16)
    piece[at : at + 2] = b"\0\0"
    value = packets.checksum(pseudo + struct.pack("!II", len(piece) - l4, 17 if udp else 6) + bytes(piece[l4:]))
    struct.pack_into("!H", piece, at, value or 0xFFFF if udp else value)
    return bytes(piece)


def _completed(frame, start, offset):
    """The frame with the checksum that it leaves to a device; the field holds the sum of the pseudo header."""
    at = start + offset
    value = packets.checksum(frame[start:])
    if value == 0 and offset == 6:  # UDP: zero would say that there is none
        value = 0xFFFF
    return frame[:at] + struct.pack("!H", value) + frame[at + 2 :]
