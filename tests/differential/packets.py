"""Random frames, composed by hand: whole ones of every protocol that rules can match on, and damaged ones.

Values come from small pools that the rules draw from as well (values.py), so that frames and rules meet.
"""
import struct

import values


def checksum(data):
    """The Internet checksum (RFC 1071) of bytes."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


class FrameMaker:
    """Makes frames from a random.Random."""

    def __init__(self, rng, normal=False, pushes=False):
        self.rng = rng
        # The rules have `normal`, and maybe push_vlan: no priority tags beside other tags, see EXCEPTIONS in run.py.
        self.normal, self.pushes = normal, pushes

    def frame(self):
        """One frame: mostly sound, sometimes damaged; never shorter than an Ethernet header."""
        rng = self.rng
        frame = self._sound()
        if rng.random() < 0.12:
            frame = self._damage(frame)
        return frame

    def burst(self):
        """Frames of one connection, as its host would send them in a row: TCP segments that follow each other, or datagrams. All are
        of one size but the last, which may be shorter; headers, tags included, differ only in what counts up."""
        rng = self.rng
        version, protocol = rng.choice((4, 4, 6)), rng.choice((6, 17))
        addresses = [rng.choice(values.IPV4S if version == 4 else values.IPV6S) for _ in range(2)]
        addresses = b"".join(map(values.ipv4 if version == 4 else values.ipv6, addresses))
        ethernet = mac(rng.choice(values.MACS)) + mac(rng.choice(values.UNICAST_MACS))
        ethernet += self._tags(rng.choices([(), (0x8100,), (0x88A8, 0x8100), (0x88A8,)], [10, 7, 2, 1])[0])
        ethernet += struct.pack("!H", 0x0800 if version == 4 else 0x86DD)
        ports = struct.pack("!HH", rng.choice(values.PORTS), rng.choice(values.PORTS))
        tos, ttl, label = rng.choice(values.TOSES), rng.choice(values.TTLS), rng.choice(values.LABELS)
        flag, ident, sequence = rng.choice((0, 0x4000)), rng.randrange(65536), rng.randrange(1 << 32)
        size, frames = rng.choice((1, 33, 64, 200)), []
        # Some are so long that their first frames still wait for the rules when their flow has been set up.
        for number in range(rng.randrange(4, 12) if self._chance(0.75) else 100):
            body = rng.randbytes(size)
            if protocol == 6:
                body = ports + struct.pack("!IIHHHH", (sequence + number * size) & 0xFFFFFFFF, 1, 0x5010, 0x1000, 0, 0) + body
            else:
                body = ports + struct.pack("!HH", 8 + size, 0) + body
            value = checksum(addresses + struct.pack("!II", len(body), protocol) + body)
            at = 16 if protocol == 6 else 6
            body = body[:at] + struct.pack("!H", value or (0 if protocol == 6 else 0xFFFF)) + body[at + 2 :]
            frames.append(ethernet + self._ip_header(version, addresses, protocol, len(body), tos, ttl, label, flag, (ident + number) & 0xFFFF) + body)
        return frames

    @staticmethod
    def _ip_header(version, addresses, protocol, size, tos, ttl, label, flag, ident):
        if version == 6:
            return struct.pack("!IHBB", 6 << 28 | tos << 20 | label, size, protocol, ttl) + addresses
        header = struct.pack("!BBHHHBBH", 0x45, tos, 20 + size, ident, flag, ttl, protocol, 0) + addresses
        return header[:10] + struct.pack("!H", checksum(header)) + header[12:]

    def long_frame(self):
        """About as long as an MTU of 1,500 lets through; tags may be taken off it or put on it."""
        return self._sound().ljust(self.rng.choice((1500, 1510, 1513, 1514, 1515, 1517, 1518, 1519, 1522, 1526, 1600)), b"\x5a")

    def _chance(self, probability):
        return self.rng.random() < probability

    def _sound(self):
        rng = self.rng
        makers = ((self._ipv4, 10), (self._ipv6, 8), (self._arp, 3), (self._other, 2))
        kind = rng.choices([maker for maker, _ in makers], [weight for _, weight in makers])[0]
        ethertype, payload = kind()
        header = mac(rng.choice(values.MACS)) + mac(rng.choice(values.UNICAST_MACS))
        tags = rng.choices([(), (0x8100,), (0x88A8, 0x8100), (0x8100, 0x8100), (0x88A8,), (0x8100, 0x88A8, 0x8100)],
                           [10, 7, 2, 1, 1, 0.3])[0]
        header += self._tags(tags)
        frame = header + (struct.pack("!H", ethertype) if ethertype is not None else b"") + payload
        if self._chance(0.15):
            frame += bytes(rng.randrange(256) for _ in range(rng.randrange(1, 12)))  # padding
        if self._chance(0.3):
            frame = frame.ljust(60, b"\0")
        return frame

    def _tags(self, tpids):
        tags = b""
        for tpid in tpids:
            tci = self._tci()
            if self.normal and (self.pushes or len(tpids) > 1):
                tci = tci & 0xE000 | self.rng.choice((10, 20, 30))
            tags += struct.pack("!HH", tpid, tci)
        return tags

    def _tci(self):
        rng = self.rng
        return rng.choice(values.PCPS) << 13 | rng.choice((0, 0, 0, 0x1000)) | rng.choice(values.VIDS)

    def _damage(self, frame):
        rng = self.rng
        way = rng.randrange(3)
        if way == 0 and len(frame) > 14:
            return frame[: rng.randrange(14, len(frame))]
        changed = bytearray(frame)
        for _ in range(rng.randrange(1, 4)):
            # Biased to the headers' beginnings, where lengths and types stand.
            at = rng.randrange(12, min(len(changed), 60)) if len(changed) > 12 else 0
            changed[at] = rng.randrange(256)
        return bytes(changed)

    # ---- network layer: each returns (ethertype or None, payload)

    def _ipv4(self):
        rng = self.rng
        source, destination = values.ipv4(rng.choice(values.IPV4S)), values.ipv4(rng.choice(values.IPV4S))
        protocol, body = self._transport(source + destination, 4)
        options = bytes(rng.choice((0, 0, 0, 4, 8)))
        fragment = rng.choices([0, 0x4000, 0x2000, 0x2001, 0x0010], [12, 2, 1, 1, 1])[0]
        header = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, rng.choice(values.TOSES), 20 + len(options) + len(body),
                             rng.randrange(65536), fragment, rng.choice(values.TTLS), protocol, 0) + source + destination + options
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        return 0x0800, header + body

    def _ipv6(self):
        rng = self.rng
        source, destination = values.ipv6(rng.choice(values.IPV6S)), values.ipv6(rng.choice(values.IPV6S))
        protocol, body = self._transport(source + destination, 6)
        if self._chance(0.1):
            more = rng.choice((0, 1))
            offset = rng.choice((0, 0, 1, 20))
            body = struct.pack("!BBHI", protocol, 0, offset << 3 | more, rng.randrange(1 << 32)) + body
            protocol = 44
        for extension in rng.choices([(), (0,), (60,), (43,), (60, 0), (51,)], [14, 1, 1, 1, 1, 1])[0]:
            if extension == 51:  # AH counts in units of 4, less 2
                body = struct.pack("!BBHII", protocol, 2, 0, 1, 1) + bytes(4) + body
            elif extension == 43:  # no segments left: a routing header that does not route
                body = struct.pack("!BBBB", protocol, 0, 0, 0) + bytes(4) + body
            else:
                body = struct.pack("!BBBB", protocol, 0, 1, 4) + bytes(4) + body
            protocol = extension
        first = 6 << 28 | rng.choice(values.TOSES) << 20 | rng.choice(values.LABELS)
        return 0x86DD, struct.pack("!IHBB", first, len(body), protocol, rng.choice(values.TTLS)) + source + destination + body

    def _arp(self):
        rng = self.rng
        ethertype = rng.choice((0x0806, 0x0806, 0x0806, 0x8035))
        payload = struct.pack("!HHBBH", 1, 0x0800, 6, 4, rng.choice(values.ARP_OPS))
        payload += mac(rng.choice(values.MACS)) + values.ipv4(rng.choice(values.IPV4S))
        payload += mac(rng.choice(values.MACS)) + values.ipv4(rng.choice(values.IPV4S))
        return ethertype, payload

    def _other(self):
        rng = self.rng
        payload = bytes(rng.randrange(256) for _ in range(rng.randrange(0, 60)))
        way = rng.randrange(4)
        if way == 0:  # 802.3: a length, then LLC
            return len(payload) + 3, b"\x42\x42\x03" + payload
        if way == 1:  # SNAP with the Ethernet organisation code
            kind, inner = self._ipv4() if self._chance(0.5) else (0x88CC, payload)
            return len(inner) + 8, b"\xaa\xaa\x03\0\0\0" + struct.pack("!H", kind) + inner
        return rng.choice((0x88CC, 0x1234, 0x8847, 0x9000)), payload

    # ---- transport layer: each returns (protocol, bytes); `pseudo` is source and destination address

    def _transport(self, pseudo, version):
        rng = self.rng
        kind = rng.choices(["tcp", "udp", "sctp", "icmp", "nd", "other"], [5, 5, 1, 3, 3 if version == 6 else 0, 1])[0]
        payload = bytes(rng.randrange(256) for _ in range(rng.choice((0, 1, 4, 18, 33))))
        ports = struct.pack("!HH", rng.choice(values.PORTS), rng.choice(values.PORTS))
        if kind == "tcp":
            header = ports + struct.pack("!IIHHHH", rng.randrange(1 << 32), rng.randrange(1 << 32),
                                         0x5000 | rng.choice(values.TCP_FLAGS), 0x1000, 0, 0)
            return 6, self._sum(header + payload, 16, pseudo, 6)
        if kind == "udp":
            body = ports + struct.pack("!HH", 8 + len(payload), 0) + payload
            # A checksum of zero says that there is none, and has to stay.
            return 17, body if self._chance(0.2) else self._sum(body, 6, pseudo, 17)
        if kind == "sctp":
            return 132, ports + struct.pack("!II", rng.randrange(1 << 32), rng.randrange(1 << 32)) + payload
        if kind == "icmp":
            protocol = 1 if version == 4 else 58
            body = bytes((rng.choice(values.ICMP_TYPES), rng.choice(values.ICMP_CODES), 0, 0, 0, 1, 0, 2)) + payload
            return protocol, self._sum(body, 2, pseudo if version == 6 else None, protocol)
        if kind == "nd":
            return 58, self._sum(self._neighbour_discovery(), 2, pseudo, 58)
        return rng.choice((2, 47, 50, 4)), payload

    def _neighbour_discovery(self):
        rng = self.rng
        body = struct.pack("!BBHI", rng.choice((135, 136)), rng.choices((0, 1), (9, 1))[0], 0, rng.choice((0, 0x60000000)))
        body += values.ipv6(rng.choice(values.IPV6S))
        for option in rng.choices([(), (1,), (2,), (1, 2), (1, 1), (14, 2)], [3, 5, 5, 2, 0.5, 1])[0]:
            body += bytes((option, rng.choices((1, 0, 3), (20, 1, 1))[0])) + mac(rng.choice(values.UNICAST_MACS))
        return body

    def _sum(self, body, at, pseudo, protocol):
        covered = body
        if pseudo is not None:
            covered = pseudo + struct.pack("!II", len(body), protocol) + body
        # A wrong checksum must stay exactly as wrong as it was.
        value = self.rng.randrange(65536) if self._chance(0.05) else checksum(covered)
        return body[:at] + struct.pack("!H", value) + body[at + 2 :]
