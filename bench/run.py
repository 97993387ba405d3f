#!/usr/bin/env python3
"""Named workloads against this switch, Open vSwitch and the kernel, interleaved in one run; bench/README.md explains them.

A NAME is a workload, a point of it, or the beginning of points' names: "forward", "forward/1000/port", "forward/1000/".
Needs root (network namespaces, huge pages) and a release build (scripts/build release)."""
import argparse
import importlib
import json
import os
import pathlib
import pkgutil
import signal
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "e2e")]
import compare  # noqa: E402
import lab  # noqa: E402
import machine  # noqa: E402
import table  # noqa: E402
import traffic  # noqa: E402
import workloads  # noqa: E402
from rounds import RETAKES, Run  # noqa: E402
from workload import WORKLOADS, Options  # noqa: E402

for module in pkgutil.iter_modules(workloads.__path__):
    importlib.import_module(f"workloads.{module.name}")


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to run; default: all of " + " ".join(WORKLOADS))
    parser.add_argument("--format", choices=["text", "json"], default="text")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side of each point (3)")
    parser.add_argument("--quick", action="store_true", help="fewer points and smaller sizes")
    parser.add_argument("--sides", metavar="SIDE,...", help="only these: ours, openvswitch, kernel, floor, ...")
    parser.add_argument("--save", metavar="NAME",
                        help="write the run to bench/results/NAME.json after each round (last, for a run of everything)")
    parser.add_argument("--against", metavar="NAME", help="say what of ours is worse than in bench/results/NAME.json")
    parser.add_argument("--check", action="store_true",
                        help="exit status 1 if a required figure is missed, a side failed, or something is worse than --against")
    parser.add_argument("--list", action="store_true", help="say what there is, run nothing")
    return parser.parse_args()


def choose(names, options):
    """The points that `names` ask for; SystemExit if a name asks for none."""
    points = {name: function(options) for name, function in WORKLOADS.items()}
    if not names:
        return [point for group in points.values() for point in group]
    chosen = []
    for name in names:
        members = [(group, point) for group, of_group in points.items() for point in of_group]
        found = [point for _, point in members if point.name == name]
        found = found or [point for group, point in members if group == name or point.name.startswith(name)]
        if not found:
            raise SystemExit(f"bench: no workload is called \"{name}\"; there are: {' '.join(WORKLOADS)} (--list says more)")
        chosen += [point for point in found if point not in chosen]
    return chosen


def choose_sides(text, points):
    """The sides that --sides asks for, None for all; SystemExit if none of the points has one of them."""
    if text is None:
        return None
    known = list(dict.fromkeys(side for point in points for side in point.sides))
    sides = text.split(",")
    for side in sides:
        if side not in known:
            raise SystemExit(f"bench: no side of what is to be measured is called \"{side}\"; there are: {' '.join(known)}")
    return set(sides)


def with_sides(points, sides):
    """Those of the points that have one of the sides."""
    return points if sides is None else [point for point in points if sides & set(point.sides)]


def list_workloads(points):
    for name, function in WORKLOADS.items():
        members = [point for point in points if point.name.split("/")[0] == name]
        if members:
            print(f"{name}: {function.__doc__.strip()}")
            for point in members:
                required = "".join(f"; required: {required}" for required in point.required)
                print(f"    {point.name} [{point.unit}]: {', '.join(point.sides)}{required}")
            print()


def result_file(name):
    return HERE / "results" / f"{name}.json"


def save(name, result):
    """The file is always a whole one, whenever the run ends."""
    path = result_file(name)
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".new")
    unfinished.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(unfinished, path)
    options = result["options"]
    print(f"bench: wrote {path.relative_to(HERE.parent)}: {options['complete']} of {options['rounds']} rounds", file=sys.stderr, flush=True)


def load(name):
    try:
        return json.loads(result_file(name).read_text())
    except (OSError, ValueError) as error:
        raise SystemExit(f"bench: there is no run to compare with: {error}") from None


def name_to_save_as(options):
    """None if the run is not to be saved."""
    if options.save or options.names or options.quick or options.sides:
        return options.save
    print("bench: a run of everything is kept in bench/results/last.json, unless --save names another", file=sys.stderr)
    return "last"


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130  # exit status, as a shell says it of SIGINT


def stop(number, _):
    """Ends the run once: what is taken down then is not interrupted again."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def measure_all(run, rounds, keep):
    """`keep` is called after each round. Whatever happens, labs take themselves down, and captures and huge pages go.

    False if the run was interrupted."""
    with machine.only_one_run(), tempfile.TemporaryDirectory(prefix="vswitch-bench-") as directory:
        traffic.Captures.directory = directory
        try:
            for _ in range(rounds):
                run.round()
                keep()
                for _ in range(RETAKES):
                    if run.retake():
                        keep()
            return True
        except KeyboardInterrupt:
            print("bench: interrupted; these are the figures so far", file=sys.stderr)
            return False
        finally:
            machine.hugepages.give_back()


def print_text(result):
    about, options = result["machine"], result["options"]
    rounds = f"{options['complete']} of " if options["complete"] < options["rounds"] else ""
    print(f"{about['cpu']}, {about['cores']} cores, TSC {about['tsc_mhz']} MHz, Linux {about['kernel']}; "
          f"medians of {rounds}{options['rounds']} interleaved rounds")
    print(table.text(result["rows"]))
    wanted = table.summary(result["rows"])
    if wanted:
        print(wanted)


def went_wrong(rows, compared):
    missed = any(required["holds"] is False for row in rows for required in row["required"])
    failed = any(problem.startswith("failed") for row in rows for problem in row["problems"].values())
    return missed or failed or any(one["worse"] for one in compared)


def main():
    options = arguments()
    points = choose(options.names, Options(quick=options.quick))
    sides = choose_sides(options.sides, points)
    points = with_sides(points, sides)
    if options.list:
        list_workloads(points)
        return 0
    before = load(options.against) if options.against else None
    name = name_to_save_as(options)
    for number in SIGNALS:
        signal.signal(number, stop)
    run = Run(points, sides)
    about = {"machine": machine.describe(lab.BIN / "vswitchd"), "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}

    def so_far():
        return about | {"options": {"rounds": options.rounds, "complete": run.complete, "quick": options.quick}, "rows": run.rows()}

    finished = measure_all(run, options.rounds, lambda: name and save(name, so_far()))
    result = so_far()
    # What was cut short in its first round does not take the place of a whole run, unless it was asked for.
    if name and not finished and (run.complete or options.save):
        save(name, result)
    compared = compare.compare(result["rows"], before["rows"]) if before else []
    if options.format == "json":
        print(json.dumps(result | ({"against": before["when"], "compared": compared} if before else {}), indent=1))
    else:
        print_text(result)
        if before:
            print(compare.text(compared, f"{options.against} ({before['when']})", table.number))
    if not finished:
        return INTERRUPTED
    return 1 if options.check and went_wrong(result["rows"], compared) else 0


if __name__ == "__main__":
    sys.exit(main())
