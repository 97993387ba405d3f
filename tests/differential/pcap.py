"""Reads capture files (classic pcap, little endian) while they grow."""
import struct


class Tail:
    """What was appended to a capture file since the last look."""

    def __init__(self, path):
        self.path = path
        self.offset = 24  # behind the file's header

    def frames(self):
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        frames, at = [], 0
        while at + 16 <= len(data):
            size = struct.unpack_from("<I", data, at + 8)[0]
            if at + 16 + size > len(data):
                break
            frames.append(data[at + 16 : at + 16 + size])
            at += 16 + size
        self.offset += at
        return frames
