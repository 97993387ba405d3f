#!/usr/bin/env python3
"""Writes the frames of a packet table (tests/datapath/flow/packets.txt) as files for a fuzzer to start from.

usage: make_corpus.py PACKETS_TXT DIRECTORY
"""
import pathlib
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


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    directory = pathlib.Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames(pathlib.Path(sys.argv[1]).read_text())):
        (directory / f"packet{number:03}").write_bytes(frame)


main()
