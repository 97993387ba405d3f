"""Frames and captures for replays."""
import functools
import pathlib
import struct

PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
SOURCE_MAC = bytes.fromhex("02000000000a")
DESTINATION_MAC = bytes.fromhex("02000000000b")
VLAN_100 = bytes.fromhex("81000064")


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


@functools.cache
def _sum_of_fixed_fields(length):
    return sum(struct.unpack("!10H", struct.pack("!BBHHHBBHII", 0x45, 0, length, 0, 0, 64, 17, 0, 0, 0)))


def udp_frame(source, destination, source_port, destination_port, mac=DESTINATION_MAC, tag=b""):
    """A 64-byte frame (60 without FCS) of UDP over IPv4; addresses as integers. A tag takes its bytes from the payload."""
    length = 46 - len(tag)
    total = (_sum_of_fixed_fields(length) + (source >> 16) + (source & 0xFFFF) + (destination >> 16) + (destination & 0xFFFF))
    total = (total >> 16) + (total & 0xFFFF)
    header = struct.pack("!BBHHHBBHIIHHHH", 0x45, 0, length, 0, 0, 64, 17, ~(total + (total >> 16)) & 0xFFFF, source, destination,
                         source_port, destination_port, length - 20, 0)
    return mac + SOURCE_MAC + tag + b"\x08\x00" + header + bytes(length - 28)


def write_pcap(path, frames):
    with open(path, "wb") as file:
        file.write(PCAP_HEADER)
        for frame in frames:
            file.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)))
            file.write(frame)


class Captures:
    """Capture files of a run, made once each, in one directory that the run removes."""

    directory = None  # set by run.py

    @classmethod
    def get(cls, name, frames):
        """The path of the capture called `name`; `frames` is called for its frames if it is not there yet."""
        path = pathlib.Path(cls.directory) / f"{name}.pcap"
        if not path.exists():
            write_pcap(path, frames())
        return path
