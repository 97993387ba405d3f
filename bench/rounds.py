"""The measurements of a run, round by round."""
import contextlib
import dataclasses
import io
import sys
import time

import machine
import table
from workload import FAILURES, Skip

# Where others on the same host took so much of a core's time meanwhile, in percent, figures say something about them: the point is measured
# again at the end of its round, so many times at most, and likewise where a side failed. Of the attempts at which most sides could be
# measured, the one that least was taken from counts.
MOST_STOLEN = 10.0
RETAKES = 2


def one_by_one(sides):
    """{side: figures, or what it raised}"""
    outcomes = {}
    for name, side in sides.items():
        try:
            outcomes[name] = side()
        except (Skip, *FAILURES) as reason:
            outcomes[name] = reason
    return outcomes


@dataclasses.dataclass
class Attempt:
    """One measurement of all sides of a point."""
    outcomes: dict = dataclasses.field(default_factory=dict)  # {side: figures, or what it raised}
    stolen: float = 0.0  # percent, while that side was measured that most was taken from

    def is_better_than(self, other):
        return (self.count(), -self.stolen) > (other.count(), -other.stolen)

    def disturbed(self):
        return self.stolen > MOST_STOLEN or any(isinstance(outcome, FAILURES) for outcome in self.outcomes.values())

    def count(self):
        """Of the sides that could be measured."""
        return sum(isinstance(outcome, dict) for outcome in self.outcomes.values())


class Run:
    """Measurements of a run. `theft` makes what tells, from then on, which percentage of a core's time was stolen."""

    def __init__(self, points, sides, theft=machine.Theft):
        self.points = points
        self.theft = theft
        self.complete = 0  # rounds
        self.number = 0  # of the round at hand
        self.rounds = {point.name: {side: [] for side in point.sides if not sides or side in sides} for point in points}
        self.problems = {point.name: {} for point in points}
        self.kept = {}  # {name of a point: the attempt of this round that counts}

    def round(self):
        """Measures each point once. The order of the sides turns, so that none always comes first."""
        self.number = self.complete
        for point in self.points:
            names = list(self.rounds[point.name])
            turn = self.number % len(names)
            sides = [name for name in names[turn:] + names[:turn] if name not in self.problems[point.name]]
            self.keep(point, self.attempt(point, sides))
        self.complete += 1

    def retake(self):
        """Measures again what was disturbed, or failed, in the round before. False if nothing was."""
        disturbed = [point for point in self.points if self.kept[point.name].disturbed()]
        for point in disturbed:
            before = self.kept[point.name]
            sides = [name for name, outcome in before.outcomes.items() if not isinstance(outcome, Skip)]
            attempt = self.attempt(point, sides, again=True)
            if attempt.is_better_than(before):
                self.keep(point, attempt)
        return bool(disturbed)

    def attempt(self, point, names, again=False):
        attempt = Attempt()
        sides = {name: point.sides[name] for name in names}
        for some in [sides] if point.together else [{name: side} for name, side in sides.items()]:
            if some:
                outcomes, stolen = self.measure(point, some, again)
                attempt.outcomes |= outcomes
                attempt.stolen = max(attempt.stolen, stolen)
        return attempt

    def measure(self, point, sides, again):
        start, theft, printed = time.monotonic(), self.theft(), io.StringIO()
        with contextlib.redirect_stdout(printed):  # a lab prints its logs when something went wrong
            try:
                outcomes = (point.together or one_by_one)(sides)
            except FAILURES as failure:
                outcomes = dict.fromkeys(sides, failure)
        stolen = theft.percent()
        took = f"{time.monotonic() - start:.0f} s" + (" for all" if len(sides) > 1 else "")
        if stolen > MOST_STOLEN:
            took += f", {stolen:.0f} % of a core's time stolen"
        for name, outcome in outcomes.items():
            said = describe(point, outcome)
            print(f"bench: round {self.number + 1}{' again' if again else ''}: {point.name} {name}: {said} ({took})", file=sys.stderr, flush=True)
        if any(isinstance(outcome, FAILURES) for outcome in outcomes.values()):
            print(printed.getvalue(), end="", file=sys.stderr)
        return {name: outcome | {"stolen_percent": stolen} if isinstance(outcome, dict) else outcome
                for name, outcome in outcomes.items()}, stolen

    def keep(self, point, attempt):
        """In place of what was kept of this round."""
        self.kept[point.name] = attempt
        for name, outcome in attempt.outcomes.items():
            if isinstance(outcome, dict):
                self.rounds[point.name][name][self.number:] = [outcome]
                self.problems[point.name].pop(name, None)
            else:
                self.problems[point.name][name] = describe(point, outcome)

    def rows(self):
        return [table.make_row(point, self.rounds[point.name], self.problems[point.name]) for point in self.points]


def describe(point, outcome):
    if isinstance(outcome, dict):
        return f"{table.number(outcome[point.metric])} {point.unit}"
    return f"{'skipped' if isinstance(outcome, Skip) else 'failed'}: {outcome}"
