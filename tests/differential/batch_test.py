"""Checks of the comparison by batches: what the tests' ends of wires do to frames, and that differences are seen."""
import random
import unittest

import batch
import device_tail
import packets
import topology
import wires


class SuperFrameTest(unittest.TestCase):
    def test_cutting_undoes_joining(self):
        maker = packets.FrameMaker(random.Random(1))
        for _ in range(200):
            frames = maker.burst()
            frame, header = wires.super_frame(frames)
            self.assertEqual(device_tail.on_the_wire(device_tail.VNET.unpack(header), frame), frames)

    def test_completing_undoes_leaving_it_to_a_device(self):
        maker = packets.FrameMaker(random.Random(2))
        for _ in range(200):
            for whole in maker.burst():
                frame, header = wires.partial_frame(whole)
                self.assertEqual(device_tail.on_the_wire(device_tail.VNET.unpack(header), frame), [whole])


class WireTest(unittest.TestCase):
    def test_lengths(self):
        port = wires.Port(topology.PORTS[0])
        tag = b"\x88\xa8\0\x01"
        self.assertTrue(port.leaves(bytes(12) + b"\x12\x34" + bytes(1500)))
        self.assertFalse(port.leaves(bytes(12) + b"\x12\x34" + bytes(1501)))
        self.assertTrue(port.leaves(bytes(12) + tag * 2 + b"\x12\x34" + bytes(1500)))
        self.assertFalse(port.leaves(bytes(12) + tag * 2 + b"\x12\x34" + bytes(1501)))

    def test_lost_tags(self):
        self.assertTrue(wires.is_lost_tag(bytes(12) + b"\x81\0" + bytes(5)))
        self.assertFalse(wires.is_lost_tag(bytes(12) + b"\x81\0" + bytes(6)))
        self.assertFalse(wires.is_lost_tag(bytes(12) + b"\x08\0" + bytes(2)))


class TellTest(unittest.TestCase):
    def samples(self, *rows):
        """One for each (flow, {port: [frames]})."""
        samples = [batch.Sample(wires.Message("p1", (b"",), flow=flow), b"") for flow, _ in rows]
        for sample, (_, made) in zip(samples, rows):
            sample.made = made
        return samples

    def test_same(self):
        samples = self.samples((1, {"p2": [b"a", b"b"]}), (2, {"p2": [b"c"], "p3": [b"c"]}))
        self.assertEqual(batch.tell(samples, {"p2": [b"c", b"a", b"b"], "p3": [b"c"]}), "")

    def test_missing_and_too_much(self):
        samples = self.samples((1, {"p2": [b"a", b"a"]}))
        self.assertIn("missing, p2: 61 (1 times)", batch.tell(samples, {"p2": [b"a"]}))
        self.assertIn("too much, p2: 61 (1 times)", batch.tell(samples, {"p2": [b"a"] * 3}))
        self.assertIn("too much, p3: 62 (1 times)", batch.tell(samples, {"p2": [b"a"] * 2, "p3": [b"b"]}))

    def test_order(self):
        samples = self.samples((1, {"p2": [b"a", b"A"]}), (1, {"p2": [b"b", b"B"]}), (2, {"p2": [b"c"]}))
        for right in ("aAbBc", "abABc", "cabAB", "acbAB"):
            self.assertEqual(batch.tell(samples, {"p2": [bytes([ord(c)]) for c in right]}), "")
        for wrong in ("AabBc", "baABc", "abBAc"):
            self.assertIn("changed places", batch.tell(samples, {"p2": [bytes([ord(c)]) for c in wrong]}))

    def test_order_of_floods(self):
        samples = self.samples((1, {"p2": [b"a", b"A"]}), (1, {"p2": [b"b", b"B"]}))
        self.assertEqual(batch.tell(samples, {"p2": [b"A", b"a", b"B", b"b"]}, in_order=False), "")
        self.assertIn("changed places", batch.tell(samples, {"p2": [b"B", b"a", b"A", b"b"]}, in_order=False))
