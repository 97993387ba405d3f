#!/usr/bin/env python3
"""Writes what fuzzers start from into files below a directory. "packets": the frames of a packet table
(tests/datapath/flow/packets.txt), and super-frames, inside tunnels and not, with what segment_fuzz and vnet_header_fuzz want in front
of them. "texts": rules as people type them (tests/vswitchd/openflow/flows.txt), with what flow_text_fuzz wants in front of them.

usage: make_corpus.py PACKETS_TXT FLOWS_TXT DIRECTORY
"""
import pathlib
import struct
import sys


def frames(text):
    frame, done = None, False
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("packet "):
            if frame:
                yield frame
            frame, done = b"", False
        elif line.startswith("=>"):
            done = True
        elif line and not done:
            frame += bytes.fromhex(line)
    if frame:
        yield frame


def ip(version, protocol, payload):
    if version == 4:
        return struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(payload), 1, 0x4000, 64, protocol, 0, 1, 2) + payload
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + bytes(32) + payload


def ethernet(version, payload):
    return bytes(12) + {4: b"\x08\x00", 6: b"\x86\xdd"}[version] + payload


def udp(checksum, payload):
    return struct.pack(">HHHH", 5, 4789, 8 + len(payload), checksum) + payload


def super_frames():
    """(frame, its vnet GSO type, where the checksum begins, and in its header)"""
    data = bytes(range(200))
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 3, 4, 0x50, 0x18, 100, 0, 0) + data
    for version in (4, 6):
        for protocol, l4, kind, field in ((6, tcp, {4: 1, 6: 4}[version], 16), (17, udp(0, data), 5, 6)):
            inner = ip(version, protocol, l4)
            whole = ethernet(version, inner)
            for frame in (whole, ethernet(4, ip(4, 17, udp(0, bytes(8) + whole))), ethernet(6, ip(6, 17, udp(9, bytes(8) + whole))),
                          ethernet(4, ip(4, 47, b"\x20\x00\x65\x58" + bytes(4) + whole)), ethernet(6, ip(6, 4 if version == 4 else 41, inner))):
                yield frame, kind, len(frame) - len(l4), field


def rules(text):
    return [line.split("\t")[0] for line in text.splitlines() if line and not line.startswith("#")]


def write_texts(directory, texts):
    directory.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        (directory / f"rule{number:03}").write_text("\0" + text)
        (directory / f"lines{number:03}").write_text(f"\7{text}\n{text}")


def write_packets(directory, text):
    directory.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames(text)):
        (directory / f"packet{number:03}").write_bytes(frame)
    for number, (frame, kind, start, field) in enumerate(super_frames()):
        request = struct.pack("=BHHBBB", 2 + 3 * {1: 1, 4: 2, 5: 3}[kind], 60, start, field, 6, 0)
        (directory / f"segment{number:03}").write_bytes(request + frame)
        vnet = struct.pack("=BBHHHH", 1, kind, start, 60, start, field)
        (directory / f"vnet{number:03}").write_bytes(vnet + bytes(4) + frame)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__.strip())
    packets, flows, directory = map(pathlib.Path, sys.argv[1:])
    write_packets(directory / "packets", packets.read_text())
    write_texts(directory / "texts", rules(flows.read_text()))


main()
