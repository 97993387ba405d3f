"""Where a transport header would be in a later fragment. See EXCEPTIONS in run.py."""

EXTENSIONS = {0, 43, 60, 51, 44}


def has_ipv6_header(frame):
    """Whether it has an IPv6 fragment header, be it a fragment or not."""
    kind, at = network_header(frame)
    return kind == b"\x86\xdd" and len(frame) >= at + 40 and _ipv6(frame, at)[0] is not None


def network_header(frame):
    """(type, where what it names begins)"""
    at = 12
    while frame[at : at + 2] in (b"\x81\0", b"\x88\xa8"):
        at += 4
    if frame[at + 2 : at + 8] == b"\xaa\xaa\x03\0\0\0":  # an 802.3 length, and SNAP
        at += 8
    return frame[at : at + 2], at + 2


def without_sums(frame):
    """A fragment that Open vSwitch is wrong about, with zeroes where checksums, ICMP type and code would stand; other frames
    as they are. Those are later fragments and, in IPv6, whatever has a fragment header."""
    kind, at = network_header(frame)
    if kind == b"\x08\0" and len(frame) >= at + 20:
        later = int.from_bytes(frame[at + 6 : at + 8], "big") & 0x1FFF
        protocol, start = frame[at + 9], at + 4 * (frame[at] & 15)
    elif kind == b"\x86\xdd" and len(frame) >= at + 40:
        later, protocol, start = _ipv6(frame, at)
    else:
        return frame
    if not later and not (kind == b"\x86\xdd" and later is not None):
        return frame
    changed = bytearray(frame)
    for first, end in {6: ((16, 18),), 17: ((6, 8),), 1: ((0, 4),), 58: ((0, 4) if later else (2, 4),)}.get(protocol, ()):
        for place in range(start + first, min(start + end, len(changed))):
            changed[place] = 0
    return bytes(changed)


def _ipv6(frame, at):
    """(fragment offset or None without a fragment header, protocol, where its header starts)"""
    protocol, start, later = frame[at + 6], at + 40, None
    while protocol in EXTENSIONS and len(frame) >= start + 8:
        if protocol == 44:
            later = int.from_bytes(frame[start + 2 : start + 4], "big") >> 3
            size = 8
        else:
            size = (frame[start + 1] + 2) * 4 if protocol == 51 else (frame[start + 1] + 1) * 8
        stop = protocol == 44 and later
        protocol, start = frame[start], start + size
        if stop:  # what is behind is payload
            break
    return later, protocol, start
