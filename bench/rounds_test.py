#!/usr/bin/env python3
"""Whether a run measures what it should, and again what was disturbed; and how it tells."""
import contextlib
import io
import unittest

import machine
from lab import Failure
from rounds import RETAKES, Run
from workload import Point, Skip


class Thefts:
    """What was stolen during one measurement after the other; nothing once they are all told."""

    def __init__(self, *percents):
        self.percents = list(percents)

    def __call__(self):
        return self

    def percent(self):
        return self.percents.pop(0) if self.percents else 0.0


def figures(*values):
    """A side that measures these, one after the other; an exception among them is raised."""
    left = list(values)

    def side():
        value = left.pop(0)
        if isinstance(value, Exception):
            raise value
        return {"mpps": value}

    return side


def run(point, *, thefts=(), rounds=1):
    made = Run([point], None, Thefts(*thefts))
    with contextlib.redirect_stderr(io.StringIO()):
        for _ in range(rounds):
            made.round()
            for _ in range(RETAKES):
                made.retake()
    return made


def point(ours, kernel=None, together=None):
    return Point("w", "mpps", "Mpps", {"ours": ours} | ({"kernel": kernel} if kernel else {}), together=together)


def measured(made, side="ours"):
    return [figures["mpps"] for figures in made.rounds["w"][side]]


class RoundsTest(unittest.TestCase):
    def test_each_side_once_a_round(self):
        made = run(point(figures(1, 2), figures(3, 4)), rounds=2)
        self.assertEqual((measured(made), measured(made, "kernel"), made.complete), ([1, 2], [3, 4], 2))

    def test_the_order_turns(self):
        order = []
        run(point(*(lambda name=name: order.append(name) or {"mpps": 1} for name in ("ours", "kernel"))), rounds=2)
        self.assertEqual(order, ["ours", "kernel", "kernel", "ours"])

    def test_all_sides_again_if_one_was_disturbed(self):
        made = run(point(figures(1, 2), figures(3, 4)), thefts=(1.0, 20.0, 0.5, 2.0))
        self.assertEqual((measured(made), measured(made, "kernel")), ([2], [4]))
        self.assertEqual([made.rounds["w"][side][0]["stolen_percent"] for side in ("ours", "kernel")], [0.5, 2.0])

    def test_what_was_disturbed_least_counts_and_not_what_is_best(self):
        self.assertEqual(measured(run(point(figures(9, 2, 8)), thefts=(40.0, 20.0, 30.0))), [2])

    def test_only_the_round_at_hand(self):
        made = run(point(figures(1, 2, 3, 4)), thefts=(19.0, 19.0, 19.0, 0.0), rounds=2)
        self.assertEqual(measured(made), [1, 4])

    def test_all_sides_again_that_are_measured_together(self):
        calls = []

        def together(sides):
            calls.append(list(sides))
            return {name: side() for name, side in sides.items()}

        made = run(point(figures(1, 2), figures(3, 4), together), thefts=(17.0,))
        self.assertEqual((calls, measured(made), measured(made, "kernel")), ([["ours", "kernel"]] * 2, [2], [4]))

    def test_a_side_that_fails_is_not_measured_in_later_rounds(self):
        made = run(point(figures(1, 2, 3, 4), figures(*[Failure("no")] * (1 + RETAKES))), rounds=2)
        self.assertEqual((measured(made), made.problems["w"]), ([1, 4], {"kernel": "failed: no"}))

    def test_all_sides_again_if_one_failed(self):
        made = run(point(figures(1, 2), figures(Failure("no"), 4)))
        self.assertEqual((measured(made), measured(made, "kernel"), made.problems["w"]), ([2], [4], {}))

    def test_a_side_that_does_not_apply_is_not(self):
        made = run(point(figures(1, 2), figures(Skip("none here"))), thefts=(50.0, 0.0))
        self.assertEqual((measured(made), made.problems["w"]), ([2], {"kernel": "skipped: none here"}))

    def test_an_attempt_at_which_a_side_fails_does_not_count(self):
        made = run(point(figures(1, 2, 3), figures(4, Failure("no"), Failure("no"))), thefts=(50.0, 50.0))
        self.assertEqual((measured(made), measured(made, "kernel"), made.problems["w"]), ([1], [4], {}))


class TheftTest(unittest.TestCase):
    def test_of_the_core_that_most_was_taken_from(self):
        texts = ["cpu  9 9 9 9 9 9 9 9 9 0\ncpu0 100 0 50 800 10 0 10 30 7 0\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 5\n",
                 "cpu  9 9 9 9 9 9 9 9 9 0\ncpu0 150 0 70 1600 10 0 20 150 99 0\ncpu1 100 0 0 0 0 0 0 0 0 0\nintr 5\n"]
        self.assertEqual(machine.Theft(lambda: texts.pop(0)).percent(), 12.0)

    def test_no_time_has_passed(self):
        self.assertEqual(machine.Theft(lambda: "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n").percent(), 0.0)

    def test_of_this_machine(self):
        self.assertGreater(len(machine.Theft().start), 0)


if __name__ == "__main__":
    unittest.main()
