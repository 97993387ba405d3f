"""Sides of a point that run by turns: all of them are up, one at a time runs, for a moment, and the others are stopped.

What a machine can give changes from second to second when others use its caches and memory, by more than what is to be told apart.
Sides that take turns of a part of a second meet the same of it."""
import contextlib
import os
import signal
import time

import machine
from lab import Failure
from workload import FAILURES, Skip

TURN = 0.2  # seconds: short beside what changes, long beside filling the caches anew


class Replay:
    """A process whose polling thread has the packet core while it runs.

    `transmitted` tells how many packets have come out, `more` tells further figures, once at the end; both are asked while the
    process runs."""

    def __init__(self, pid, polling_thread, transmitted, more=dict):
        self.pid = pid
        self.thread = machine.pin_polling_thread(pid, polling_thread)
        self.transmitted = transmitted
        self.more = more
        self.ran = 0.0  # seconds, up to the latest stop
        self.resumed = time.monotonic()

    def stop(self):
        os.kill(self.pid, signal.SIGSTOP)
        self.ran += time.monotonic() - self.resumed

    def resume(self):
        self.resumed = time.monotonic()
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


def measure(starts, seconds):
    """{name: {mpps, cycles, core_share, ...}, or what it raised}, each of them having run that long.

    `starts`: {name: function that returns a context manager of a Replay}. One that fails does not keep the others from going on."""
    sides = {name: contextlib.ExitStack() for name in starts}
    replays, failed = {}, {}

    def attempt(name, step):
        try:
            step()
        except (Skip, *FAILURES) as failure:
            failed[name] = failure
            replays.pop(name, None)
            # Taken down by what went wrong, a lab tells its logs.
            with contextlib.suppress(Skip, *FAILURES):
                sides[name].__exit__(type(failure), failure, failure.__traceback__)

    def start(name):
        replay = sides[name].enter_context(starts[name]())
        sides[name].callback(replay.let_go)
        replay.stop()
        replays[name] = replay

    def turn(replay, step):
        with replay.running():
            step(replay)

    def all_by_turns(step):
        for name, replay in list(replays.items()):
            attempt(name, lambda: turn(replay, step))

    with contextlib.ExitStack() as whatever_happens:
        for side in sides.values():
            whatever_happens.push(side)
        for name in starts:
            attempt(name, lambda: start(name))
        all_by_turns(Replay.begin)
        for _ in range(round(seconds / TURN)):
            all_by_turns(lambda _: time.sleep(TURN))
        all_by_turns(Replay.end)
        for name, side in sides.items():
            attempt(name, side.close)
    return {name: replay.figures for name, replay in replays.items()} | failed
