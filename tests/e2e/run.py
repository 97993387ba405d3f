#!/usr/bin/env python3
"""Runs the end-to-end scenes: each in namespaces of its own, with real kernel packets.

Usage: tests/e2e/run.py [NAME...]     names or parts of names; default: all

Scenes about switching run once for each kind of port (port_kinds.py): `learning@afxdp` is one of them.
"""
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
                    yield full_name if kind is port_kinds.NETDEV else f"{full_name}@{kind.name}", function, kind


def main(wanted):
    if os.geteuid() != 0:
        print("tests/e2e: network namespaces need root; run it with sudo", file=sys.stderr)
        return 1
    passed, failed, unsteady = 0, [], []
    for name, function, kind in scenes():
        if wanted and not any(part in name for part in wanted):
            continue
        port_kinds.current = kind
        if attempt(name, function):
            passed += 1
        # The kernel and a loaded machine take part in every scene. A second failure is ours; a first alone is told below.
        elif attempt(name, function):
            passed += 1
            unsteady.append(name)
        else:
            failed.append(name)
    if unsteady:
        print("passed at the second try only, look into them: " + ", ".join(unsteady))
    if failed:
        print("failed: " + ", ".join(failed))
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed or not passed else 0


def attempt(name, function):
    """Runs a scene and tells how it went. True if it passed."""
    start = time.monotonic()
    try:
        function()
    except port_kinds.Missing as missing:
        print(f"not tested: {name}: {missing}", flush=True)
        return True
    except Exception as error:  # noqa: BLE001: a scene that fails must not keep the others from running
        print(f"FAILED  {name} ({time.monotonic() - start:.1f} s)")
        if isinstance(error, Failure):
            at = [f for f in traceback.extract_tb(error.__traceback__) if "scenes_" in f.filename]
            if at:
                print(f"  at {pathlib.Path(at[-1].filename).name}:{at[-1].lineno}: {at[-1].line}")
            print("  " + str(error).replace("\n", "\n  "))
        else:
            traceback.print_exc(file=sys.stdout)
        return False
    print(f"ok      {name} ({time.monotonic() - start:.1f} s)", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
