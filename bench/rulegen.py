"""Large rule files in the manner of ClassBench: kinds of rules with the prefix lengths and port ranges that such sets have.

The same number of the same kind gives the same file in every run. Rules are distinct."""
import random

# (length, weight): source prefixes of filters are often missing or hosts, destinations are mostly networks and hosts.
SOURCE_LENGTHS = ((0, 20), (8, 2), (16, 8), (20, 4), (22, 4), (24, 22), (26, 4), (27, 4), (28, 6), (30, 4), (32, 22))
DESTINATION_LENGTHS = ((8, 1), (16, 8), (20, 4), (21, 3), (22, 6), (23, 6), (24, 24),
                       (26, 6), (27, 6), (28, 8), (29, 4), (30, 4), (32, 20))
# Routes: most are /24, then /22, /23, /20, as in the tables of the Internet.
ROUTE_LENGTHS = ((8, 1), (12, 1), (14, 1), (16, 20), (18, 20), (19, 40), (20, 70), (21, 80),
                 (22, 140), (23, 120), (24, 500), (28, 2), (30, 5), (32, 20))
PORTS = (("", 25), ("exact", 55), ("0x400/0xfc00", 8), ("0x8000/0x8000", 6), ("0x1f90/0xfff0", 6))
PROTOCOLS = (("tcp", 65), ("udp", 30), ("ip", 5))


def picker(rng, weighted):
    values, weights = zip(*weighted)
    cumulative = [sum(weights[:i + 1]) for i in range(len(weights))]
    return lambda: rng.choices(values, cum_weights=cumulative)[0]


def prefix(address, length):
    address &= 0xFFFFFFFF << (32 - length) & 0xFFFFFFFF
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}/{length}"


def acl(count):
    """5-tuples: two prefixes, protocol, ports exact, in a range that one mask covers, or any."""
    rng = random.Random(count)
    source_length, destination_length = picker(rng, SOURCE_LENGTHS), picker(rng, DESTINATION_LENGTHS)
    port, protocol = picker(rng, PORTS), picker(rng, PROTOCOLS)
    seen = set()
    while len(seen) < count:
        kind = protocol()
        match = f"{kind},nw_dst={prefix(rng.getrandbits(32), destination_length())}"
        length = source_length()
        if length:
            match += f",nw_src={prefix(rng.getrandbits(32), length)}"
        if kind != "ip":
            value = port()
            if value:
                match += f",tp_dst={rng.randrange(1, 65536) if value == 'exact' else value}"
        if match not in seen:
            seen.add(match)
            yield f"priority={60000 - len(seen) % 50000},{match},actions=output:{1 + len(seen) % 100}"


def l3(count):
    """Routes: the longest prefix wins."""
    rng = random.Random(count)
    length_of = picker(rng, ROUTE_LENGTHS)
    seen = set()
    while len(seen) < count:
        length = length_of()
        network = prefix(rng.getrandbits(32), length)
        if network not in seen:
            seen.add(network)
            yield f"priority={100 + length},ip,nw_dst={network},actions=dec_ttl,output:{1 + len(seen) % 100}"


def l2(count):
    """Stations: VLAN and destination address."""
    rng = random.Random(count)
    seen = set()
    while len(seen) < count:
        key = rng.getrandbits(24), rng.randrange(1, 4000)
        if key not in seen:
            seen.add(key)
            address = (0x020000000000 | key[0]).to_bytes(6, "big").hex(":")
            yield f"priority=100,dl_vlan={key[1]},dl_dst={address},actions=output:{1 + len(seen) % 100}"


KINDS = {"acl": acl, "l3": l3, "l2": l2}
