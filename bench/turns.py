"""Sides of a point that run by turns: all of them are up, one at a time runs, for a moment, and the others are stopped.

What a machine can give changes from second to second when others use its caches and memory, by more than what is to be told apart.
Sides that take turns of a part of a second meet the same of it."""
import contextlib
import os
import signal
import sys
import time

import machine
from lab import Failure
from workload import FAILURES, Skip

TURN = 0.2  # seconds: short beside what changes, long beside filling the caches anew
PAUSE = 0.05  # seconds at the beginning of one: what a switch does by the clock, late as it was stopped, is done by then


class Side:
    """What has its turns. Its process, if there is one to stop, runs meanwhile."""

    def __init__(self, pid):
        self.pid = pid
        self.ran = 0.0  # seconds, up to the latest stop
        self.resumed = time.monotonic()
        self.figures = {}

    def begin(self):
        """Before its first turn, while it runs."""

    def spend(self):
        """One turn."""
        time.sleep(TURN)

    def end(self):
        """After its last turn, while it runs: fills `figures`."""

    def stop(self):
        if self.pid is not None:
            os.kill(self.pid, signal.SIGSTOP)
        self.ran += time.monotonic() - self.resumed

    def resume(self):
        self.resumed = time.monotonic()
        if self.pid is not None:
            os.kill(self.pid, signal.SIGCONT)

    def let_go(self):
        """Who is stopped cannot end; who has ended need not."""
        with contextlib.suppress(ProcessLookupError):
            self.resume()

    @contextlib.contextmanager
    def running(self):
        self.resume()
        try:
            yield
        finally:
            self.stop()


class Replay(Side):
    """A process whose polling thread has the packet core while it runs.

    `transmitted` tells how many packets have come out, `more` tells further figures, once at the end; both are asked while the
    process runs."""

    def __init__(self, pid, polling_thread, transmitted, more=dict):
        super().__init__(pid)
        self.thread = machine.pin_polling_thread(pid, polling_thread)
        self.transmitted = transmitted
        self.more = more

    def read(self):
        packets = self.transmitted()
        return packets, machine.thread_seconds(self.pid)[self.thread], self.ran + time.monotonic() - self.resumed

    def begin(self):
        self.first = self.read()

    def end(self):
        packets, used, ran = (last - first for first, last in zip(self.first, self.read()))
        if packets <= 0:
            raise Failure(f"nothing came out in {ran:.1f} s")
        self.figures = {"mpps": packets / ran / 1e6, "cycles": used * machine.tsc_hz() / packets, "core_share": used / ran} | self.more()


def measure(starts, turns):
    """{name: its figures, or what it raised}, each having had so many turns.

    `starts`: {name: function that returns a context manager of a Side}. One that fails does not keep the others from going on."""
    stacks = {name: contextlib.ExitStack() for name in starts}
    sides, failed = {}, {}

    def attempt(name, step):
        try:
            step()
        except (Skip, *FAILURES) as failure:
            failed[name] = failure
            sides.pop(name, None)
            # Taken down by what went wrong, a lab tells its logs.
            with contextlib.suppress(Skip, *FAILURES):
                stacks[name].__exit__(type(failure), failure, failure.__traceback__)

    def start(name):
        side = stacks[name].enter_context(starts[name]())
        stacks[name].callback(side.let_go)
        side.stop()
        sides[name] = side

    def turn(side, step):
        with side.running():
            step(side)

    def all_by_turns(step):
        for name, side in list(sides.items()):
            attempt(name, lambda: turn(side, step))

    with contextlib.ExitStack() as whatever_happens:
        for stack in stacks.values():
            whatever_happens.push(stack)
        for name in starts:
            attempt(name, lambda: start(name))
        all_by_turns(lambda side: side.begin())
        for _ in range(turns):
            all_by_turns(lambda side: side.spend())
        all_by_turns(lambda side: side.end())
        figures = {name: side.figures for name, side in sides.items()}
        for name, stack in stacks.items():
            attempt(name, stack.close)
    for name in figures.keys() & failed.keys():
        print(f"bench: {name} was measured, but could not be taken down: {failed[name]}", file=sys.stderr)
    return failed | figures
