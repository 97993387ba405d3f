"""Rule sets for forwarding, and frames that match them: rules in ovs-ofctl's syntax, from port 1 to port 2."""
import dataclasses
from typing import Callable

import traffic

OUT = "actions=output:2"


@dataclasses.dataclass(frozen=True)
class RuleSet:
    name: str
    what: str
    rules: tuple[str, ...]
    frame: Callable[[int], bytes]  # the frame of flow number n


def dotted(address):
    return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))


def mac(number):
    return bytes([0x02, 0, 0, 1, number >> 8 & 255, number & 255])


def plain_frame(n):
    """Flows that differ in source address and port."""
    return traffic.udp_frame(0x0A010000 + n, 0x0AC80001, 1024 + n % 60000, 53)


def port_rule():
    return RuleSet("port", "one rule on the port", (f"in_port=1,{OUT}",), plain_frame)


def l2_rules(count=1000):
    """One rule per destination address."""
    rules = tuple(f"dl_dst={mac(i).hex(':')},{OUT}" for i in range(count))
    return RuleSet("l2", f"{count} rules on destination MAC addresses", rules,
                   lambda n: traffic.udp_frame(0x0A010000 + n, 0x0AC80001, 1024 + n % 60000, 53, mac=mac(n % count)))


class AclClass:
    """Rules of one mask: a prefix of the source, one of the destination, UDP, and the destination port exactly."""

    def __init__(self, k):
        self.k = k
        self.source_length = 16 + k % 16
        self.destination_length = (16, 20, 24, 28)[k // 16 % 4]
        self.count = min(8, 1 << (self.source_length - 16))

    def source(self, r):
        return 10 << 24 | self.k << 16 | r << (32 - self.source_length)

    def destination(self):
        return 172 << 24 | (16 + self.k % 16) << 16

    def rules(self):
        # Those with more bits go first, as an administrator would have it.
        priority = 100 + self.source_length + self.destination_length
        return [f"priority={priority},udp,nw_src={dotted(self.source(r))}/{self.source_length},"
                f"nw_dst={dotted(self.destination())}/{self.destination_length},tp_dst={1000 + self.k}" for r in range(self.count)]

    def frame(self, j):
        r, j = j % self.count, j // self.count
        host = (j * 7) & ((1 << (32 - self.source_length)) - 1)
        # The host bits of the destination (4 at least) and the source port tell flows apart.
        return traffic.udp_frame(self.source(r) | host, self.destination() | (j // 60000) & 15, 1024 + j % 60000, 1000 + self.k)


def acl_matches(masks):
    return [rule for k in range(masks) for rule in AclClass(k).rules()]


def acl_frame(masks):
    classes = [AclClass(k) for k in range(masks)]
    return lambda n: classes[n % masks].frame(n // masks)


def acl_rules(masks):
    rules = tuple(f"{match},{OUT}" for match in acl_matches(masks))
    return RuleSet(f"acl{masks}", f"{len(rules)} 5-tuple rules of {masks} masks, all in use", rules, acl_frame(masks))


def vlan_push():
    return RuleSet("vlan-push", "a tag is pushed",
                   ("in_port=1,actions=push_vlan:0x8100,set_field:4196->vlan_vid,output:2",), plain_frame)


def vlan_pop():
    return RuleSet("vlan-pop", "a tag is popped", ("in_port=1,vlan_tci=0x1000/0x1000,actions=strip_vlan,output:2",),
                   lambda n: traffic.udp_frame(0x0A010000 + n, 0x0AC80001, 1024 + n % 60000, 53, tag=traffic.VLAN_100))


def pipeline(tables=30):
    """Each table matches what the one before wrote to a register, and every third the packet, too; 8 rules a table."""
    rules = ["table=0,in_port=1,actions=set_field:1->reg0,goto_table:1"]
    last = tables - 1
    for table in range(1, last):
        packet = {1: "", 2: ",udp,nw_dst=10.200.0.0/16", 0: ",udp,tp_dst=53"}[table % 3]
        rules.append(f"table={table},priority=10,reg0={table}{packet},"
                     f"actions=set_field:{table + 1}->reg0,set_field:{table * 3}->reg{1 + table % 3},goto_table:{table + 1}")
        rules += [f"table={table},priority=10,reg0={1000 + i}{packet},actions=drop" for i in range(7)]
    rules.append(f"table={last},reg0={last},{OUT}")
    return RuleSet(f"pipeline{tables}", f"{tables} tables that pass registers on", tuple(rules), plain_frame)


# ---------------------------------------------------------------- flow set-up


def set_up_rules(masks=64):
    """The 5-tuple rules, and then a table whose moves depend on every bit of the 5-tuple: each flow needs a megaflow of its own."""
    first = tuple(f"table=0,{match},actions=goto_table:1" for match in acl_matches(masks))
    moves = "move:NXM_OF_IP_SRC[]->NXM_NX_REG0[],move:NXM_OF_IP_DST[]->NXM_NX_REG1[]," \
            "move:NXM_OF_UDP_SRC[]->NXM_NX_REG2[0..15],move:NXM_OF_UDP_DST[]->NXM_NX_REG2[16..31]"
    second = (f"table=1,udp,actions={moves},output:2",)
    return RuleSet("setup", "each flow its own megaflow", first + second, acl_frame(masks))


# ---------------------------------------------------------------- attack (CVE-2019-25076)

ALLOWED_SOURCE, ALLOWED_SOURCE_PORT, ALLOWED_PORT = 0x0A010203, 12345, 80
BIT_FLIPS = 32 * 16 * 16


def attacked_rules():
    """Three rules that allow by one field each, and nothing else is: what is denied has been compared with all three."""
    allowed = (f"tp_dst={ALLOWED_PORT}", f"nw_src={dotted(ALLOWED_SOURCE)}", f"tp_src={ALLOWED_SOURCE_PORT}")
    return tuple(f"priority=100,udp,{field},{OUT}" for field in allowed) + ("priority=1,actions=drop",)


def honest_frame(n):
    return traffic.udp_frame(0x0A020000 + n, 0x0AC80001, 20000 + n % 40000, ALLOWED_PORT)


def bit_flip_frame(n):
    """Number n of 8,192: each field differs from the allowed value in one bit, so that each needs a mask of its own."""
    n %= BIT_FLIPS
    source, source_port, port = 1 << n % 32, 1 << n // 32 % 16, 1 << n // 512
    return traffic.udp_frame(ALLOWED_SOURCE ^ source, 0x0AC80001, ALLOWED_SOURCE_PORT ^ source_port, ALLOWED_PORT ^ port)


def random_frame(n):
    """Fields at random, the same in every run."""
    random = (n + 1) * 0x9E3779B97F4A7C15 % (1 << 64)
    random = (random ^ random >> 29) * 0xBF58476D1CE4E5B9 % (1 << 64)
    return traffic.udp_frame(random >> 32, 0x0AC80001, random & 0xFFFF, random >> 16 & 0xFFFF)


# ---------------------------------------------------------------- all


def forwarding():
    return [port_rule(), l2_rules(), acl_rules(4), acl_rules(64), vlan_push(), vlan_pop(), pipeline()]
