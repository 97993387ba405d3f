"""Checks of the comparison itself: it must see differences. run.py runs these first."""
import random
import unittest

import actions
import fragments
import packets


class ActionsTest(unittest.TestCase):
    def test_split_minds_parentheses(self):
        self.assertEqual(actions.split("set(eth(src=1,dst=2)),p1,clone(p2,p3)"), ["set(eth(src=1,dst=2))", "p1", "clone(p2,p3)"])

    def test_same_effect_same_form(self):
        self.assertEqual(actions.canonical("drop"), [])
        self.assertEqual(actions.canonical("set(ipv4(tos=0x20/0xfc,ttl=64)),p1"), actions.canonical("set(ipv4(ttl=0x40,tos=32/0xfc)),p1"))
        self.assertEqual(actions.canonical("userspace(pid=0,controller(reason=1)),p1"), ["userspace", "p1"])

    def test_order_of_outputs(self):
        same = lambda one, other: self.assertEqual(actions.canonical(one), actions.canonical(other))
        same("p1,p2,userspace(x),p4,p3", "p2,p1,userspace(y),p3,p4")
        same("trunc(64),p1,p3,p2", "trunc(64),p1,p2,p3")
        same("trunc(64),set(eth(src=1)),p3,p2,p1", "trunc(64),set(eth(src=1)),p3,p1,p2")
        self.assertNotEqual(actions.canonical("trunc(64),set(eth(src=1)),p1,p2"), actions.canonical("trunc(64),set(eth(src=1)),p2,p1"))
        self.assertNotEqual(actions.canonical("trunc(64),p1,p2"), actions.canonical("trunc(64),p2,p1"))
        self.assertNotEqual(actions.canonical("p1,pop_vlan,p2"), actions.canonical("p2,pop_vlan,p1"))
        self.assertEqual(actions.outputs(actions.canonical("p2,clone(pop_vlan,p1),trunc(9),p1,userspace(x)")),
                         ["p1", "p2", "trunc(9)p1", "userspace"])

    def test_differences_stay(self):
        for one, other in (("p1", "p1,p1"), ("p1", "drop"), ("set(eth(src=1))", "set(eth(dst=1))"), ("p1,userspace(x)", "p1"),
                           ("push_vlan(vid=1,pcp=0)", "push_vlan(vid=1,pcp=1)"), ("clone(p1),p2", "clone(p1,p2)"), ("trunc(64),p1", "trunc(65),p1")):
            self.assertNotEqual(actions.canonical(one), actions.canonical(other), (one, other))

    def test_masks(self):
        same = lambda one, other: actions.same_but_for_masks(actions.canonical(one), actions.canonical(other))
        self.assertTrue(same("set(ipv6(tclass=0/0xfc)),clone(set(eth(dst=00:00:00:00:00:01/00:00:00:00:00:0f)),p1)",
                             "set(ipv6(tclass=0)),clone(set(eth(dst=00:00:00:00:00:01)),p1)"))
        self.assertTrue(same("set(tcp(dst=47)),p1", "set(tcp(dst=32/0xfff0)),p1"))
        self.assertTrue(same("set(ipv6(src=fe80::1))", "set(ipv6(src=::1/::ffff))"))
        self.assertFalse(same("set(ipv6(tclass=0/0xfc)),p1", "set(ipv6(tclass=4/0xfc)),p1"))
        self.assertTrue(same("set(icmp(type=8,code=0)),p1", "set(icmp(type=8)),p1"))
        self.assertFalse(same("set(tcp(dst=47)),p1", "set(udp(dst=47)),p1"))
        self.assertFalse(same("set(tcp(dst=47)),p1", "set(tcp(dst=47)),p2"))

    def test_trace_parts(self):
        self.assertEqual(actions.canonical("recirc(0x1),clone(drop),p1"), actions.canonical("recirc(0x2f),p1"))
        text = "Flow: x\n\nFinal flow: unchanged\nMegaflow: recirc_id=0,eth,in_port=p1\nDatapath actions: p2\n"
        self.assertEqual(actions.trace_parts(text), ("p2", "recirc_id=0,eth,in_port=p1"))
        self.assertRaises(ValueError, actions.trace_parts, "no such line")


class FragmentsTest(unittest.TestCase):
    def frame(self, offset):
        """A TCP packet over two tags, with `offset` as its fragment offset."""
        return bytes(12) + bytes.fromhex("88a8000a8100000a0800") + bytes.fromhex(f"4500003c0000{offset:04x}4006") + bytes(10) + bytes([7]) * 20

    def test_only_later_fragments_are_touched(self):
        self.assertEqual(fragments.without_sums(self.frame(0x2000)), self.frame(0x2000))
        touched = fragments.without_sums(self.frame(1))
        self.assertEqual(touched[42:], bytes([7]) * 16 + b"\0\0" + bytes([7]) * 2)
        self.assertEqual(touched[:42], self.frame(1)[:42])


class PacketsTest(unittest.TestCase):
    def test_checksum(self):
        # The example of RFC 1071, section 3.
        self.assertEqual(packets.checksum(bytes.fromhex("0001f203f4f5f6f7")), 0xFFFF ^ 0xDDF2)

    def test_frames_can_be_sent(self):
        maker = packets.FrameMaker(random.Random(1))
        for _ in range(500):
            self.assertTrue(14 <= len(maker.frame()) <= 1514)
