#!/usr/bin/env python3
"""Runs the end-to-end scenes: each in namespaces of its own, with real kernel packets.

Usage: tests/e2e/run.py [NAME...]     names or parts of names; default: all

Scenes about packets that cross the switch run on each kind of port and with each way of lookup (port_kinds.py): `learning@afxdp` and
`learning@dpdk+cache-only` are two of them. What this machine has no ports for is told and passed over, unless VSWITCH_ALL_KINDS=yes.
"""
import collections
import importlib
import os
import pathlib
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import port_kinds  # noqa: E402
from lab import Failure  # noqa: E402


def scenes():
    """(name, function, kind of ports) of every function scene_* in files scenes_*.py, in order of file and place."""
    for path in sorted(HERE.glob("scenes_*.py")):
        module = importlib.import_module(path.stem)
        for name, function in list(vars(module).items()):
            if name.startswith("scene_"):
                full_name = f"{path.stem.removeprefix('scenes_')}.{name.removeprefix('scene_')}"
                for kind in getattr(function, "port_kinds", [port_kinds.NETDEV]):
                    yield f"{full_name}@{kind.label}" if kind.label else full_name, function, kind


def main(wanted):
    if os.geteuid() != 0:
        print("tests/e2e: network namespaces need root; run it with sudo", file=sys.stderr)
        return 1
    never_met = port_kinds.never_met(kind for _, _, kind in scenes())
    if never_met:
        print(f"tests/e2e: no scene brings these together: {never_met}", file=sys.stderr)
        return 1
    results, unsteady = collections.defaultdict(list), []
    for name, function, kind in scenes():
        if wanted and not any(part in name for part in wanted):
            continue
        port_kinds.current = kind
        result = attempt(name, function)
        # The kernel and a loaded machine take part in every scene. A second failure is ours; a first alone is told below.
        if result == "failed":
            result = attempt(name, function)
            if result != "failed":
                unsteady.append(name)
        results[result].append(name)
    if unsteady:
        print("passed at the second try only, look into them: " + ", ".join(unsteady))
    if results["failed"]:
        print("failed: " + ", ".join(results["failed"]))
    print(f"{len(results['passed'])} passed, {len(results['failed'])} failed, {len(results['not tested'])} not tested")
    return 1 if results["failed"] or not any(results.values()) else 0


def attempt(name, function):
    """Runs a scene, tells how it went, and returns "passed", "failed" or "not tested"."""
    start = time.monotonic()
    try:
        function()
    except port_kinds.Missing as missing:
        if port_kinds.ALL_WANTED and isinstance(missing, port_kinds.MissingKind):
            print(f"FAILED  {name}: every kind is wanted, and: {missing}", flush=True)
            return "failed"
        print(f"not tested: {name}: {missing}", flush=True)
        return "not tested"
    except Exception as error:  # noqa: BLE001: a scene that fails must not keep the others from running
        print(f"FAILED  {name} ({time.monotonic() - start:.1f} s)")
        if isinstance(error, Failure):
            at = [f for f in traceback.extract_tb(error.__traceback__) if "scenes_" in f.filename]
            if at:
                print(f"  at {pathlib.Path(at[-1].filename).name}:{at[-1].lineno}: {at[-1].line}")
            print("  " + str(error).replace("\n", "\n  "))
        else:
            traceback.print_exc(file=sys.stdout)
        return "failed"
    print(f"ok      {name} ({time.monotonic() - start:.1f} s)", flush=True)
    return "passed"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
