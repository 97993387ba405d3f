"""Random rules, in the flow syntax that both switches read.

A rule is valid by construction: what a field presupposes is matched before it is matched or written. `Facts` tracks what a
rule knows about the packets it gets, as its actions change them.
"""
import values

# Writable fields by the fact they presuppose: name, width in bits, pool of values as text.
_PORTS = tuple(str(port) for port in values.PORTS)
WRITABLE = {
    "any": (
        ("eth_src", 48, values.UNICAST_MACS),
        ("eth_dst", 48, values.MACS),
        ("pkt_mark", 32, tuple(map(str, values.WORDS))),
        ("metadata", 64, tuple(map(str, values.WORDS))),
        ("tun_id", 64, tuple(map(str, values.WORDS))),
        *((f"reg{n}", 32, tuple(map(str, values.WORDS))) for n in (0, 1, 2, 3, 15)),
        ("xreg0", 64, ("1", "0x200000001", "0xffffffffffffffff")),
        ("xreg1", 64, ("0", "0x100000002")),
        ("xxreg0", 128, ("0", "0x10000000200000003000000ff", "0x1")),
    ),
    "vlan": (
        ("vlan_vid", 12, tuple(str(vid) for vid in values.VIDS)),
        ("vlan_pcp", 3, ("0", "3", "7")),
    ),
    "ip4": (
        ("ip_src", 32, values.IPV4S),
        ("ip_dst", 32, values.IPV4S),
    ),
    "ip6": (
        ("ipv6_src", 128, values.IPV6S),
        ("ipv6_dst", 128, values.IPV6S),
        ("ipv6_label", 20, ("0", "0x12345", "0xfffff")),
    ),
    "ip": (
        ("nw_tos", 8, ("0", "32", "184")),
        ("ip_dscp", 6, ("0", "8", "46")),
        ("nw_ecn", 2, ("0", "1", "3")),
        ("nw_ttl", 8, ("0", "1", "2", "64", "255")),
    ),
    "arp": (
        ("arp_op", 16, ("1", "2", "3")),
        ("arp_spa", 32, values.IPV4S),
        ("arp_tpa", 32, values.IPV4S),
        ("arp_sha", 48, values.MACS),
        ("arp_tha", 48, values.MACS),
    ),
    "tcp": (("tcp_src", 16, _PORTS), ("tcp_dst", 16, _PORTS)),
    "udp": (("udp_src", 16, _PORTS), ("udp_dst", 16, _PORTS)),
    "sctp": (("sctp_src", 16, _PORTS), ("sctp_dst", 16, _PORTS)),
    "icmp4": (("icmp_type", 8, ("0", "3", "8")), ("icmp_code", 8, ("0", "1"))),
    "icmp6": (("icmpv6_type", 8, ("128", "129", "134")), ("icmpv6_code", 8, ("0", "1"))),
    "nd": (("nd_target", 128, values.IPV6S),),
    "nd_solicit": (("nd_sll", 48, values.UNICAST_MACS),),
    "nd_advert": (("nd_tll", 48, values.UNICAST_MACS),),
}
# Fields that can be read in whole or part (move, push, output:FIELD) but not written.
READ_ONLY = {"tcp": (("tcp_flags", 12, ()),), "ip": (("nw_proto", 8, ()),)}
WIDTHS = {name: width for fields in (*WRITABLE.values(), *READ_ONLY.values()) for name, width, _ in fields}
# Written with a mask or in part; OpenFlow knows no masks for the others in set_field.
MASKABLE = {"eth_src", "eth_dst", "pkt_mark", "metadata", "tun_id", "ip_src", "ip_dst", "ipv6_src", "ipv6_dst", "ipv6_label", "vlan_vid",
            "arp_spa", "arp_tpa", "arp_sha", "arp_tha", "tcp_src", "tcp_dst", "udp_src", "udp_dst", "sctp_src", "sctp_dst", "nd_target",
            "nd_sll", "nd_tll", "reg0", "reg1", "reg2", "reg3", "reg15", "xreg0", "xreg1", "xxreg0"}

# Keyword of a kind of packet: what it implies.
KINDS = {
    "": (),
    "ip": ("ip", "ip4"),
    "tcp": ("ip", "ip4", "tcp"),
    "udp": ("ip", "ip4", "udp"),
    "sctp": ("ip", "ip4", "sctp"),
    "icmp": ("ip", "ip4", "icmp4"),
    "ipv6": ("ip", "ip6"),
    "tcp6": ("ip", "ip6", "tcp"),
    "udp6": ("ip", "ip6", "udp"),
    "sctp6": ("ip", "ip6", "sctp"),
    "icmp6": ("ip", "ip6", "icmp6"),
    "icmp6,icmp_type=135,icmp_code=0": ("ip", "ip6", "icmp6", "nd", "nd_solicit"),
    "icmp6,icmp_type=136,icmp_code=0": ("ip", "ip6", "icmp6", "nd", "nd_advert"),
    "arp": ("arp",),
    "rarp": ("arp",),
}
KIND_WEIGHTS = (14, 6, 6, 5, 1, 4, 6, 4, 4, 1, 3, 3, 3, 5, 1)


class RuleMaker:
    """Makes the rules of one bridge from a random.Random.

    ports: OpenFlow port numbers of the bridge; patch: those of them that are patch ports, to which no max_len is possible.
    instructions: whether OpenFlow 1.1 instructions may be used; if not, OpenFlow 1.0's mod_vlan_* are.
    """

    def __init__(self, rng, ports, patch=(), tables=1, instructions=True, normal=False,
                 recirculation=False):
        self.rng = rng
        self.ports = ports
        self.patch = patch
        self.tables = tables
        self.instructions = instructions
        self.normal = normal
        self.recirculation = recirculation

    def rules(self, count):
        lines = {}
        for _ in range(count):
            line, identity = self._rule()
            lines[identity] = line
        # A rule that catches the rest, so that not most packets are dropped at once.
        for table in range(self.tables):
            if self.rng.random() < 0.75:
                facts = set()
                lines[(table, 0, "")] = f"table={table},priority=0,actions={self._rule_actions(facts, table)}"
        return list(lines.values())

    def _chance(self, probability):
        return self.rng.random() < probability

    def _rule(self):
        rng = self.rng
        table = rng.randrange(self.tables)
        # Priorities differ from rule to rule but for overlaps that cannot be: which of two equal rules wins is undefined.
        self._priority = getattr(self, "_priority", 10) + 1
        priority = rng.randrange(1, 60) * 100 + self._priority
        facts, match = self._match()
        actions = self._rule_actions(facts, table)
        cookie = f"cookie={rng.randrange(1, 255):#x}," if self._chance(0.2) else ""
        text = f"{cookie}table={table},priority={priority}" + (f",{match}" if match else "") + f",actions={actions}"
        return text, (table, priority, match)

    # ---- matches

    def _match(self):
        rng = self.rng
        kind = rng.choices(list(KINDS), KIND_WEIGHTS)[0]
        facts = set(KINDS[kind])
        parts = [kind] if kind else []
        candidates = self._match_candidates(facts, kind)
        rng.shuffle(candidates)
        used = set()
        for group, make in candidates[: rng.choice((0, 1, 1, 1, 2, 2, 3, 4))]:
            if group in used:
                continue
            used.add(group)
            parts.append(make())
            if group == "vlan" and self._vlan_known:
                facts.add("vlan")
        return facts, ",".join(parts)

    def _match_candidates(self, facts, kind):
        """(group, maker) pairs; of one group only one may be used."""
        rng = self.rng
        pick = lambda name, pool: lambda: f"{name}={rng.choice(pool)}"
        self._vlan_known = False
        found = [
            ("in_port", pick("in_port", self.ports)),
            ("eth_src", lambda: "dl_src=" + self._mac_match(values.UNICAST_MACS)),
            ("eth_dst", lambda: "dl_dst=" + self._mac_match(values.MACS)),
            ("vlan", self._vlan_match),
            ("vlan", self._vlan_match),
            ("reg0", lambda: "reg0=" + self._word_match(32)),
            ("reg1", lambda: "reg1=" + self._word_match(32)),
            ("metadata", lambda: "metadata=" + self._word_match(64)),
            ("pkt_mark", lambda: "pkt_mark=" + self._word_match(32)),
            ("tun_id", lambda: "tun_id=" + self._word_match(64)),
            ("xreg1", lambda: "xreg1=" + self._word_match(64)),
        ]
        if not kind:
            found.append(("eth_type", pick("dl_type", ("0x88cc", "0x1234", "0x05ff", "0x8847", "0x9000"))))
        if "ip4" in facts:
            found += [("nw_src", lambda: "nw_src=" + self._ipv4_match()), ("nw_dst", lambda: "nw_dst=" + self._ipv4_match())] * 2
        if "ip6" in facts:
            found += [("ipv6_src", lambda: "ipv6_src=" + self._ipv6_match()), ("ipv6_dst", lambda: "ipv6_dst=" + self._ipv6_match())] * 2
            found.append(("label", lambda: "ipv6_label=" + rng.choice(("0x12345", "0", "0x345/0xfff"))))
        transport = facts & {"tcp", "udp", "sctp", "icmp4", "icmp6"}
        if "ip" in facts:
            # Later fragments have no transport header to look at.
            found += [("tos", pick("nw_tos", ("0", "32", "184"))), ("ecn", pick("nw_ecn", "0123")), ("ttl", pick("nw_ttl", values.TTLS)),
                      ("frag", pick("ip_frag", ("no", "yes", "first", "not_later", *([] if transport else ["later"]))))]
            if kind in ("ip", "ipv6"):
                found.append(("proto", pick("nw_proto", (2, 47, 50, 51, 44, 0))))
        if facts & {"tcp", "udp", "sctp"}:
            found += [("tp_src", lambda: "tp_src=" + self._port_match()), ("tp_dst", lambda: "tp_dst=" + self._port_match())] * 2
        if "tcp" in facts:
            found += [("flags", pick("tcp_flags", ("+syn-ack", "+ack", "0x012", "0x10/0x10", "-rst", "+fin")))] * 2
        if "icmp4" in facts or ("icmp6" in facts and "nd" not in facts):
            found += [("icmp_type", pick("icmp_type", values.ICMP_TYPES)), ("icmp_code", pick("icmp_code", values.ICMP_CODES))]
        if "nd" in facts:
            found += [("nd_target", lambda: "nd_target=" + self._ipv6_match())] * 2
        if "nd_solicit" in facts:
            found.append(("nd_sll", lambda: "nd_sll=" + self._mac_match(values.UNICAST_MACS)))
        if "nd_advert" in facts:
            found.append(("nd_tll", lambda: "nd_tll=" + self._mac_match(values.UNICAST_MACS)))
        if "arp" in facts:
            found += [("arp_op", pick("arp_op", (0, 1, 2, 3))), ("arp_spa", lambda: "arp_spa=" + self._ipv4_match()),
                      ("arp_tpa", lambda: "arp_tpa=" + self._ipv4_match()),
                      ("arp_sha", lambda: "arp_sha=" + self._mac_match(values.MACS)),
                      ("arp_tha", lambda: "arp_tha=" + self._mac_match(values.MACS))]
        return found

    def _vlan_match(self):
        way = self.rng.randrange(7)
        self._vlan_known = way < 4
        if way == 0:
            return f"dl_vlan={self.rng.choice(values.VIDS)}"
        if way == 1:
            return f"dl_vlan={self.rng.choice(values.VIDS)},dl_vlan_pcp={self.rng.choice(values.PCPS)}"
        if way == 2:
            return "vlan_tci=0x1000/0x1000"
        if way == 3:
            return self.rng.choice(("vlan_vid=0x1000/0x1001", "vlan_vid=0x1002/0x1002", "vlan_tci=0x100a/0x1fff"))
        if way == 4:
            return "dl_vlan=0xffff"
        chosen = self.rng.choice(("vlan_tci=0x0000", "vlan_tci=0/0x1000", "dl_vlan_pcp=3"))
        self._vlan_known = "pcp" in chosen
        return chosen

    def _mac_match(self, pool):
        mask = self.rng.choice(("", "", "", "/01:00:00:00:00:00", "/ff:ff:ff:ff:00:00", "/00:00:00:00:00:01"))
        return self._masked(self.rng.choice(pool), mask)

    def _ipv4_match(self):
        return self.rng.choice(values.IPV4S) + self.rng.choice(("", "", "/24", "/8", "/0.0.0.3", "/255.0.0.1", "/31"))

    def _ipv6_match(self):
        return self.rng.choice(values.IPV6S) + self.rng.choice(("", "", "/64", "/32", "/127", "/::3"))

    def _port_match(self):
        return self.rng.choice(_PORTS) + self.rng.choice(("", "", "", "/0xfff0", "/0x1", "/0xff00"))

    def _word_match(self, bits):
        word = self.rng.choice(values.WORDS)
        return f"{word:#x}" + self.rng.choice(("", "", "/0x1", "/0xff", "/0xfffffffe" if bits == 32 else "/0xffffffff00000000"))

    @staticmethod
    def _masked(value, mask):
        return value + mask

    # ---- actions

    def _rule_actions(self, facts, table):
        """All that stands behind `actions=`."""
        rng = self.rng
        if self._chance(0.04):
            return "drop"
        facts = set(facts)
        parts = self._actions(facts, rng.choice((1, 1, 2, 3, 4, 6)), table, depth=0)
        if self.instructions:
            if self._chance(0.08):
                parts.append("clear_actions")
            if self._chance(0.12) and not self.recirculation:
                written = self._actions(set(facts), rng.choice((1, 2, 3)), table, depth=2)
                parts.append(f"write_actions({','.join(written)})")
            if self._chance(0.1):
                parts.append("write_metadata:" + rng.choice(("0x1", "0xff/0xf", "0xffffffffffffffff", "0x100000000/0x100000000")))
            if table + 1 < self.tables and self._chance(0.35):
                parts.append(f"goto_table:{rng.randrange(table + 1, self.tables)}")
        return ",".join(parts)

    def _actions(self, facts, count, table, depth):
        """`count` actions that are valid one after the other. depth 0: a rule's; 1: in a clone; 2: in an action set."""
        rng = self.rng
        in_set = depth == 2
        parts = []
        for _ in range(count):
            makers = [(self._output, 9), (self._set_field, 8), (self._push_vlan, 2), (self._strip_vlan, 2)]
            if facts & {"ip"}:
                makers += [(self._dec_ttl, 2), (self._mod_ip, 2)]
            if facts & {"tcp", "udp", "sctp"}:
                makers.append((self._mod_transport, 2))
            makers.append((self._mod_ethernet, 1))
            if not in_set:
                makers += [(self._move, 4), (self._push_or_pop, 2), ("resubmit", 5 if self.tables > 1 else 1), (self._odd, 2),
                           (self._output_field, 1)]
                if not self.instructions:
                    makers.append((self._mod_vlan, 3))
                if depth < 1:
                    makers.append((self._recirculate, 3) if self.recirculation else ("clone", 1.5))
            maker = rng.choices([make for make, _ in makers], [weight for _, weight in makers])[0]
            if maker == "clone":
                inner = self._actions(set(facts), rng.choice((1, 2, 3)), table, depth + 1)
                parts.append(f"clone({','.join(inner)})")
                continue
            if maker == "resubmit":
                parts.append(self._resubmit(table))
                continue
            part = maker(facts)
            # An action set takes no options of outputs.
            if in_set and (part.startswith("controller") or "max_len" in part):
                continue
            parts.append(part)
        if not any("output" in part or "resubmit" in part or part.isdigit() for part in parts) and self._chance(0.6):
            parts.append(self._output(facts) if not in_set else f"output:{rng.choice(self.ports)}")
        return parts or [f"output:{rng.choice(self.ports)}"]

    def _output(self, facts):
        rng = self.rng
        reserved = ["in_port", "flood", "all", "local", "controller"] + (["normal"] * 8 if self.normal else [])
        if self._chance(0.35) and not self.recirculation:
            name = rng.choice(reserved)
            if name == "controller" and self._chance(0.5):
                return rng.choice(("controller:128", "controller(max_len=64,id=3)", "controller(reason=no_match)",
                                   "controller(reason=invalid_ttl,id=1)"))
            return name
        plain = [port for port in self.ports if port not in self.patch]
        if self._chance(0.1) and not self.normal:
            # No less than an Ethernet header and two tags: see EXCEPTIONS in run.py.
            return f"output(port={rng.choice(plain)},max_len={rng.choice((22, 30, 40, 64, 1000))})"
        return f"output:{rng.choice(list(self.ports) + [77])}"

    def _output_field(self, facts):
        return "output:" + self.rng.choice(("reg0[0..15]", "reg1[0..2]", "reg2[]", "metadata[0..15]", "tun_id[0..4]"))

    def _one_writable(self, facts):
        # Draw the fact first: registers are many, headers are what it is about.
        groups = [fields for fact, fields in WRITABLE.items()
                  if fact == "any" or fact in facts and not (fact == "vlan" and self.normal)]
        return self.rng.choice(self.rng.choice(groups))

    def _one_readable(self, facts):
        groups = [fields for known in (WRITABLE, READ_ONLY) for fact, fields in known.items() if fact == "any" or fact in facts]
        return self.rng.choice(self.rng.choice(groups))

    def _set_field(self, facts):
        rng = self.rng
        name, width, pool = self._one_writable(facts)
        value = rng.choice(pool)
        if name == "vlan_vid":
            # load writes the 12 bits; set_field of vlan_vid has the "present" bit in it.
            return f"set_field:{int(value) | 0x1000}->vlan_vid"
        # OpenFlow 1.0 writes whole fields in its own actions, and ovs-ofctl forgets the mask on the way to them.
        partly = name in MASKABLE and (self.instructions or name.startswith(("reg", "xreg", "xxreg", "metadata", "pkt_mark")))
        if partly and self._chance(0.3):
            if ":" in value and width == 48:
                return f"set_field:{value}/{rng.choice(('ff:ff:ff:00:00:00', '00:00:00:00:00:0f', '00:00:ff:ff:00:00'))}->{name}"
            if width == 128 and ":" in value:
                return f"set_field:{value}/{rng.choice(('ffff::', '::ffff', 'ffff:ffff::1'))}->{name}"
            if "." in value:
                return f"set_field:{value}/{rng.choice(('255.0.0.0', '0.0.0.255', '0.255.255.0'))}->{name}"
            return f"set_field:{value}/{rng.choice(('0xff', '0x1', '0xf0'))}->{name}"
        if self._chance(0.25) and (value.isdigit() or value.startswith("0x")):
            if name == "xxreg0" or self._chance(0.5) and width > 8 and partly:
                low = rng.randrange(0, min(width, 32) - 4)
                high = min(width - 1, low + rng.choice((0, 3, 7, 15)))
                return f"load:{int(value, 0) & ((1 << (high - low + 1)) - 1):#x}->{name}[{low}..{high}]"
            return f"load:{int(value, 0):#x}->{name}[]"
        return f"set_field:{value}->{name}"

    def _move(self, facts):
        rng = self.rng
        source, source_width, _ = self._one_readable(facts)
        target, target_width, _ = self._one_writable(facts)
        if source == target:
            return f"move:{source}[0..1]->reg3[4..5]" if source != "reg3" else "move:reg3[0..1]->reg2[0..1]"
        whole = target not in MASKABLE
        bits = target_width if whole else rng.choice((1, 8, 16, 32, 48, 128))
        bits = min(bits, source_width, target_width)
        if whole and bits < target_width:
            return "move:reg0[]->reg1[]"
        from_bit = rng.choice((0, source_width - bits))
        to_bit = rng.choice((0, target_width - bits))
        return f"move:{source}[{from_bit}..{from_bit + bits - 1}]->{target}[{to_bit}..{to_bit + bits - 1}]"

    def _push_or_pop(self, facts):
        name, width, _ = self._one_writable(facts) if self._chance(0.5) else self._one_readable(facts)
        if self._chance(0.55):
            return f"push:{name}[]"
        if name in ("tcp_flags", "nw_proto"):
            name = "reg0"
        return f"pop:{name}[]" if name not in MASKABLE or self._chance(0.7) else f"pop:{name}[0..{width // 2 - 1}]"

    def _push_vlan(self, facts):
        # At most two tags that are known of. OpenFlow 1.0 cannot say push_vlan.
        if not self.instructions or "vlan2" in facts:
            return self._strip_vlan(facts)
        facts.add("vlan2" if "vlan" in facts else "vlan")
        push = "push_vlan:" + self.rng.choice(("0x8100", "0x8100", "0x88a8"))
        if self.normal:  # no priority tag in front of another tag: see EXCEPTIONS in run.py
            push += f",set_field:{self.rng.choice((10, 20, 30)) | 0x1000}->vlan_vid"
        return push

    def _strip_vlan(self, facts):
        # From OpenFlow 1.1 on, there must be a tag to strip.
        if self.instructions and "vlan" not in facts:
            return self._push_vlan(facts)
        facts.discard("vlan2" if "vlan2" in facts else "vlan")
        return self.rng.choice(("strip_vlan", "pop_vlan")) if self.instructions else "strip_vlan"

    def _mod_vlan(self, facts):
        facts.add("vlan")
        if self._chance(0.6):
            return f"mod_vlan_vid:{self.rng.choice((10, 20, 30) if self.normal else values.VIDS)}"
        return f"mod_vlan_pcp:{self.rng.choice(values.PCPS)}"

    def _dec_ttl(self, facts):
        return self.rng.choice(("dec_ttl", "dec_ttl", "dec_ttl(1,2)"))

    def _mod_ip(self, facts):
        rng = self.rng
        found = [f"mod_nw_tos:{rng.choice((0, 32, 184))}", f"mod_nw_ttl:{rng.choice(values.TTLS)}", f"mod_nw_ecn:{rng.choice((0, 1, 3))}"]
        if "ip4" in facts:
            found += [f"mod_nw_src:{rng.choice(values.IPV4S)}", f"mod_nw_dst:{rng.choice(values.IPV4S)}"]
        return rng.choice(found)

    def _mod_transport(self, facts):
        return f"mod_tp_{self.rng.choice(('src', 'dst'))}:{self.rng.choice(_PORTS)}"

    def _mod_ethernet(self, facts):
        return f"mod_dl_{self.rng.choice(('src', 'dst'))}:{self.rng.choice(values.UNICAST_MACS)}"

    def _resubmit(self, table):
        rng = self.rng
        if self._chance(0.15) and not self.recirculation:
            # Possibly a loop: both must end it in the same way. (With recirculation in it, it would take too long.)
            return rng.choice((f"resubmit({rng.choice(self.ports)},{rng.randrange(self.tables)})", f"resubmit:{rng.choice(self.ports)}"))
        if table + 1 < self.tables:
            return f"resubmit(,{rng.randrange(table + 1, self.tables)})"
        return f"output:{rng.choice(self.ports)}"

    def _recirculate(self, facts):
        # No clone, no exit, and something behind it: see EXCEPTIONS in run.py.
        return "debug_recirc," + (self._output(facts) if self._chance(0.6) else self._set_field(facts))

    def _odd(self, facts):
        return self.rng.choice(("note:01" if self.recirculation else "exit", "note:01.02.03", "set_tunnel:5", "set_tunnel64:0x500000001", "load:0->in_port[]",
                                f"load:{self.rng.choice(self.ports)}->in_port[]"))
