"""This switch, as the workloads drive it."""
import contextlib
import json
import subprocess

import lab as labs
from lab import Failure, Switch


class Asker:
    """Questions to a switch over one connection that stays open (tools/rule_changer.cc)."""

    def __init__(self, switch, bridge):
        command = [labs.BIN.parent / "bench" / "rule_changer", switch.server, bridge]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=30)

    def ask(self, *words):
        self.process.stdin.write("\t".join(words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise Failure(self.process.stderr.read())
        return float(answer)


class Ours(Switch):
    """A vswitchd in a host of a lab."""

    polling_thread = "forward"
    note = {}  # what a measurement says about it

    def __init__(self, lab, host, settings=None):
        super().__init__(lab, host)
        lab.switches.append(self)
        for key, value in (settings or {}).items():
            self.vsctl("set", "Open_vSwitch", ".", f"other_config:{key}={value}")

    @property
    def pid(self):
        return self.process.pid

    def add_bridge(self, name, *, secure=True):
        self.vsctl("add-br", name, f"fail_mode={'secure' if secure else 'standalone'}")

    def add_port(self, bridge, name, *words, ofport=None):
        self.vsctl("add-port", bridge, name, *words, *([f"ofport_request={ofport}"] if ofport else []))

    def knows_port_type(self, kind):
        """Whether this build has ports of that type: the daemon names those it has when it refuses one."""
        done = self.tool("vsctl", "add-br", "probe", "--", "add-port", "probe", "port", "type=nosuchtype", check=False)
        return kind in done.stderr

    def rules(self, bridge, rules):
        self.ofctl("add-flows", bridge, "-", stdin="\n".join(rules) + "\n", timeout=300)

    def bridge_name(self, name):
        return name

    def transmitted(self, port, bridge="br0"):
        return self.port_statistics(bridge, port)["txPackets"]

    def datapath(self):
        """The datapath's counters by their API names, as numbers; what is zero may be missing."""
        return {name: int(value) for name, value in json.loads(self.dpctl("stats", "--format", "json")).items() if str(value).isdigit()}

    def datapath_flows(self):
        return self.datapath().get("flows", 0)

    @contextlib.contextmanager
    def flow_counter(self):
        """A function that does what datapath_flows() does, and does not start a program each time."""
        with Asker(self, "br0") as asker:
            yield lambda: int(asker.ask("flows"))

    @contextlib.contextmanager
    def rule_remover(self, match):
        """A function that removes the rule of exactly this match, and does not start a program for it."""
        with Asker(self, "br0") as asker:
            asker.ask("flows")  # the first question takes longest
            yield lambda: asker.ask("apply", "del-strict", match)

    def lost(self):
        """(packets that met no flow and were lost, packets looked up)"""
        now = self.datapath()
        return now.get("lost", 0), now.get("hits", 0) + now.get("misses", 0)
