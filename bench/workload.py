"""What a workload is: points, each measured on several sides, and what the figures must reach."""
import dataclasses
import subprocess
from typing import Callable, Optional

from lab import Failure

# What a side raises that cannot be measured.
FAILURES = (Failure, OSError, SystemError, subprocess.SubprocessError)


class Skip(Exception):
    """A side that cannot be measured here; the text says why. Nothing is wrong."""


@dataclasses.dataclass(frozen=True)
class Required:
    """`metric` of ours must be at least (or at most) `factor` times that of `peer`, or `factor` itself if peer is None."""
    metric: str
    relation: str  # ">=" or "<="
    factor: float
    peer: Optional[str] = None
    noise: float = 0.0  # absolute difference that never counts as worse

    @property
    def better(self):
        return "higher" if self.relation == ">=" else "lower"

    def __str__(self):
        return f"{self.metric} {self.relation} {self.factor:g}" + (f" x {self.peer}" if self.peer else "")

    def judge(self, medians):
        """(figure, holds) from {side: {metric: median}}; None if a side is missing. No figure where the peer's is zero."""
        ours = medians.get("ours", {}).get(self.metric)
        theirs = medians.get(self.peer, {}).get(self.metric) if self.peer else 1.0
        if ours is None or theirs is None:
            return None
        figure = ours / theirs if theirs else None
        limit = self.factor * theirs
        holds = ours >= limit - self.noise if self.relation == ">=" else ours <= limit + self.noise
        return figure, holds


@dataclasses.dataclass
class Point:
    """One row of figures: the same thing measured on every side.

    A side is a function that makes all it needs, measures once, cleans up, and returns {metric: number}; text values are
    notes. The first side is ours. It raises Skip if it does not apply and one of FAILURES if it failed. Where `together` measures all
    sides, a side is whatever that takes."""
    name: str
    metric: str  # the one in the table's column of values
    unit: str
    sides: dict[str, Callable[[], object]]
    required: tuple[Required, ...] = ()
    derive: Optional[Callable[[dict], None]] = None  # adds metrics to {side: {metric: number}} of a round
    # From {side: what is in `sides`} to {side: {metric: number}, or what it raised}.
    together: Optional[Callable[[dict], dict]] = None
    better: str = "higher"  # or "lower": `metric`, where nothing is required of it
    peer: Optional[str] = "openvswitch"  # who shows what a machine can give; None: the figure hardly depends on that

    def judged(self):
        """How the metric in the table and the required ones of two runs are compared: {metric: {better, peer, noise}}."""
        out = {self.metric: {"better": self.better, "peer": self.peer, "noise": 0.0}}
        for required in reversed(self.required):  # of several, the first says who the peer is
            out[required.metric] = {"better": required.better, "peer": required.peer or self.peer, "noise": required.noise}
        return out


@dataclasses.dataclass
class Options:
    quick: bool = False

    def pick(self, full, quick):
        return quick if self.quick else full


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


WORKLOADS = {}


def workload(name):
    """Registers a function from Options to a list of Points; its docstring says what is measured, and how."""

    def register(function):
        WORKLOADS[name] = function
        return function

    return register
