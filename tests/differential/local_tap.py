"""Captures what comes out of a device inside of a network namespace: of the bridges' own ports, which are devices of the host."""
import ctypes
import os
import socket
import struct

SOL_PACKET, PACKET_AUXDATA = 263, 8
ETH_P_ALL = 3
VLAN_VALID, VLAN_TPID_VALID = 1 << 4, 1 << 6
CLONE_NEWNET = 0x40000000


def socket_in(namespace, device):
    """A packet socket on a device of a named network namespace; the calling thread stays where it is."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(there, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns to {namespace}")
        try:
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        finally:
            if libc.setns(home, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns back")
    finally:
        os.close(there)
        os.close(home)
    opened.bind((device, ETH_P_ALL))
    opened.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    opened.setblocking(False)
    return opened


class DeviceTail:
    """What the device received since the last look, tags included."""

    def __init__(self, namespace, device):
        self.socket = socket_in(namespace, device)

    def frames(self):
        frames = []
        while True:
            try:
                data, ancillary, _, _ = self.socket.recvmsg(1 << 16, 256)
            except BlockingIOError:
                return frames
            frames.append(self._with_tag(data, ancillary))

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
