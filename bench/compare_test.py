#!/usr/bin/env python3
"""Whether compare.py sees what is worse, and only that."""
import unittest

import compare


def row(ours, theirs=(), better="higher", peer="openvswitch", noise=0.0, metric="mpps"):
    sides = {"ours": ours, "openvswitch": theirs}
    return {"workload": "w", "judged": {metric: {"better": better, "peer": peer, "noise": noise}},
            "sides": {name: {"rounds": [{metric: figure} for figure in figures]} for name, figures in sides.items() if figures}}


def is_worse(now, then):
    return [one["worse"] for one in compare.compare([now], [then])]


class CompareTest(unittest.TestCase):
    def test_more_than_a_tenth_and_outside_of_both_spreads(self):
        then = row((10.0, 10.5, 11.0))
        self.assertEqual(is_worse(row((8.0, 8.5, 9.0)), then), [True])
        self.assertEqual(is_worse(row((9.7, 9.8, 9.9)), then), [False])
        self.assertEqual(is_worse(row((8.0, 8.5, 10.1)), then), [False])
        self.assertEqual(is_worse(row((12.0, 13.0, 14.0)), then), [False])

    def test_lower_may_be_better(self):
        then = row((10.0, 10.5, 11.0), better="lower")
        self.assertEqual(is_worse(row((12.0, 13.0, 14.0), better="lower"), then), [True])
        self.assertEqual(is_worse(row((8.0, 8.5, 9.0), better="lower"), then), [False])
        self.assertEqual(is_worse(row((1, 2), better="lower"), row((0, 0), better="lower")), [True])

    def test_the_peer_tells_a_slower_machine_from_a_slower_switch(self):
        then = row((10.0, 10.0), (5.0, 5.0))
        slower_machine = compare.compare([row((5.0, 5.0), (2.5, 2.5))], [then])[0]
        self.assertTrue(slower_machine["worse_absolute"])
        self.assertFalse(slower_machine["worse"])
        self.assertEqual(is_worse(row((10.0, 10.0), (10.0, 10.0)), then), [True])

    def test_without_a_peer_in_both_the_figure_counts(self):
        then = row((10.0, 10.0), (5.0, 5.0))
        self.assertEqual(is_worse(row((5.0, 5.0)), then), [True])
        self.assertEqual(is_worse(row((5.0, 5.0), (0.0, 2.5)), then), [True])
        self.assertEqual(is_worse(row((5.0, 5.0), (2.5, 2.5), peer=None), then), [True])

    def test_noise_does_not_count(self):
        then = row((0.0, 0.0), better="lower")
        self.assertEqual(is_worse(row((0.4, 0.4), better="lower", noise=0.5), then), [False])
        self.assertEqual(is_worse(row((0.6, 0.6), better="lower", noise=0.5), then), [True])

    def test_what_only_one_has_is_not_compared(self):
        self.assertEqual(compare.compare([row((1.0,), metric="new")], [row((2.0,))]), [])
        self.assertEqual(compare.compare([row((1.0,))], []), [])
        self.assertEqual(compare.compare([row(())], [row((2.0,))]), [])

    def test_text(self):
        compared = compare.compare([row((5.0, 6.0), (2.5, 3.0))], [row((10.0, 10.0), (5.0, 5.0))])
        first, second = compare.text(compared, "last", str).splitlines()
        self.assertEqual(first, "1 figure is in last, too: none worse")
        self.assertEqual(second, "  w mpps: 10.0 (10.0..10.0), now 5.5 (5.0..6.0); "
                                 "by openvswitch 2.0 (2.0..2.0), now 2.0 (2.0..2.0): not by openvswitch")


if __name__ == "__main__":
    unittest.main()
