#!/usr/bin/env python3
"""Compares vswitch with a real Open vSwitch: the same random rules and the same frames must have the same effect.

Usage: tests/differential/run.py [--tables N] [--packets N] [--seed S] [--only TABLE] [--keep-going N] [--lookup WAY]
                                 [--ports dummy|netdev|afxdp|afxdp-generic|dpdk|mixed] [--threads N]

Each numbered table is a set of rules for both bridges, settings of their ports, and a sequence of frames; it depends on the
seed and its number only, so `--seed S --only T` repeats one. Both switches keep running: a table replaces the rules of the
one before. For each frame these must agree:
  1. the datapath actions that a trace reports, by port name (actions.py says what is left out of account);
  2. the bytes that leave by every port, from capture files.
A set of rules must also be taken by both or refused by both.

With --ports, vswitch has ports of that kind, and the frames are real packets on wires to them (wires.py). Many come in at once,
bursts of connections among them, with partial checksums and as super-frames where a host would send these, and to some ports with
their tags held aside of the frames; what leaves by each port is compared byte for byte, and in its order as far as that is defined
(batch.py). `mixed` has a port of each kind. With --threads, so many forwarding threads share the ports.

A mismatch prints everything needed to repeat it by hand, and puts it into build/repro-SEED-TABLE.txt.

EXCEPTIONS: where no agreement is asked for
- Order of floods. Open vSwitch floods in the order of a hash. That is no difference among plain outputs. But `normal` changes
  tags from port to port, and a patch port does the other bridge's actions when its turn comes. For these, the same packets
  must go to the same ports equally often, in any order (_order_is_open). For the same reason rules with `normal` have no
  output with max_len: Open vSwitch cuts before tags are changed, so what is cut depends on the port before. Behind a flood that
  goes through a patch port the length of a cut is left open for the same reason. Nor does the drop eligible bit of tags count there:
  it survives until a tag is taken off and put back, which the order decides.
- Priority tags (VLAN 0, priority 0) beside another tag, in `normal`. Open vSwitch loses the tag behind one, and with it the
  packet's VLAN, or the one behind another tag; vswitch takes off the outermost alone. Rules and frames with `normal` make no
  such packets.
- Cuts below 22 bytes. Both cut before tags are taken off, and Open vSwitch then sends nothing that is shorter than an
  Ethernet header; vswitch leaves the header whole. Rules cut at 22 bytes or more: a header and two tags.
- Cuts left behind. If an output with max_len is skipped (its port does not forward, or the packet came from it), Open vSwitch's trunc()
  stays, and cuts the next output instead; vswitch drops the cut with its output.
- Limits. Open vSwitch bounds actions by their size in netlink, vswitch by their number. Nothing is compared beyond either
  (_over_a_limit). A packet may be recirculated 6 times in Open vSwitch's datapath, 8 times in vswitch's.
- debug_recirc. Open vSwitch forgets what follows a clone that recirculates, mistakes what `exit` left out for what a later
  recirculation has to go on with, and looks a packet that comes back to no actions up in table 0 once more; and it ends
  itself by an assertion if an action set is longer than what is left to do. Rules with it have no clone, no exit and no write_actions,
  and do not end in it.
- Masks of set(...). What a megaflow matches exactly need not be masked out in a set action, and which bits either switch
  leaves in is its own business, if values and bytes sent agree.
- Later fragments. They have no transport header, but Open vSwitch writes into them as if they had: the checksum of TCP or UDP
  when an address changes, and type and code of ICMP. Linux and vswitch leave them alone. Bytes at these places are left out
  then, for such packets and actions only.
- IPv6 with a fragment header. Open vSwitch changes addresses and leaves the transport checksum as it was, which is then wrong.
  Checksums are left out then, for such packets only.
- SCTP ports of first fragments. The checksum covers the whole datagram, so neither can keep it right; vswitch drops the
  packet, Open vSwitch sends it with a wrong one. Bytes are not compared then.
- Neighbour messages with both link-layer addresses. There should be none; Open vSwitch extracts both, but writes the first
  only. Bytes are not compared then, if one of them is written.
- Truncated ARP. Open vSwitch ends by a segmentation fault when an action writes the opcode of an ARP packet that is too short to
  have one. Tables with such actions have no such frames.
- What the test's ends of wires cannot carry. The kernel drops what it receives if it ends within two bytes after a tag, be it
  at the bridges' own ports, which are its devices, or at others; and devices take frames of 14 bytes, up to their MTU. The
  exact rules for each kind of port are `arrives` and `leaves` in wires.py: what does not arrive must do nothing, what does not
  leave is not expected.
- MTU. Open vSwitch's ports have none here; vswitch counts 1,500 bytes behind the Ethernet header and its tags (a dummy port of
  Open vSwitch would allow for one tag of 802.1Q).
- Packet-ins. What a userspace action asks for is compared by its presence and place.
"""
import argparse
import io
import os
import pathlib
import shutil
import sys
import tempfile
import time
import traceback
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

import actions_test  # noqa: E402
import batch  # noqa: E402
import batch_test  # noqa: E402
import comparison  # noqa: E402
import ours  # noqa: E402
import ovs  # noqa: E402
import port_kinds  # noqa: E402
import wires  # noqa: E402


def compare(arguments, directory):
    """Returns (passed, failed)."""
    oracle = subject = number = None
    try:
        oracle = ovs.OpenVSwitch(directory / "ovs")
        how = f" --lookup {arguments.lookup}" + (f" --ports {arguments.ports}" if arguments.ports else "")
        how += f" --threads {arguments.threads}" if arguments.threads > 1 else ""
        subject = ours.Vswitch(directory / "vswitch", arguments.lookup, arguments.ports or "dummy", arguments.threads)
        comparing = (batch.BatchComparison if arguments.ports else comparison.Comparison)(oracle, subject, arguments.seed, how)
        numbers = [arguments.only] if arguments.only is not None else range(arguments.tables)
        passed = failed = 0
        for number in numbers:
            report = comparing.table(comparison.Table.random(arguments.seed, number, arguments.packets))
            if report is None:
                passed += 1
                continue
            failed += 1
            build = ROOT / "build"
            build.mkdir(exist_ok=True)
            (build / f"repro-{arguments.seed}-{number}.txt").write_text(report)
            print(report, flush=True)
            if failed >= arguments.keep_going:
                print(f"stopped after {failed} mismatches")
                break
        for what, count in sorted(comparing.statistics.items()):
            print(f"{what}: {count}")
        return passed, failed
    except BaseException:
        print(f"--- in table {number}")
        if subject:
            print(f"--- last of the log of vswitchd\n{subject.log()}")
        if oracle:
            print(f"--- last of the log of ovs-vswitchd\n{oracle.log()}")
        raise
    finally:
        for switch in (subject, oracle):
            if switch:
                switch.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=300)
    parser.add_argument("--packets", type=int, default=10, help="frames for each table")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="run this table alone")
    parser.add_argument("--keep-going", type=int, default=5, help="stop after so many mismatches")
    parser.add_argument("--lookup", choices=port_kinds.LOOKUPS, default="all", help="by which ways vswitch's datapath looks flows up")
    parser.add_argument("--ports", choices=wires.NAMES, help="send real packets on such ports, many at once")
    parser.add_argument("--threads", type=int, default=1, help="forwarding threads of vswitch")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("tests/differential: network namespaces need root; run it with sudo", file=sys.stderr)
        return 1
    suite = unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromModule, (actions_test, batch_test)))
    out = io.StringIO()
    if not unittest.TextTestRunner(out).run(suite).wasSuccessful():
        print(out.getvalue())
        print("0 passed, 1 failed")
        return 1
    directory = pathlib.Path(tempfile.mkdtemp(prefix="vswitch-differential-"))
    start = time.monotonic()
    try:
        passed, failed = compare(arguments, directory)
    except port_kinds.Missing as missing:
        print(f"not tested: ports {arguments.ports}: {missing}")
        return 1 if port_kinds.ALL_WANTED else 0
    except Exception:  # noqa: BLE001: whatever went wrong, the last line must say that it did
        traceback.print_exc(file=sys.stdout)
        passed, failed = 0, 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{time.monotonic() - start:.1f} s")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
