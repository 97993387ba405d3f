"""Open vSwitch 3.1 with its datapath in user space, started by hand in private directories.

The DPDK build runs with --no-pci and --in-memory: it touches no device of the machine and leaves no file behind. Without telemetry, as
a switch that starts asks those that are there, who may be stopped (turns.py)."""
import contextlib
import json
import os
import pathlib
import re
import socket

import machine
from lab import Failure, eventually, run

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
PLAIN = "/usr/lib/openvswitch-switch/ovs-vswitchd"
DPDK = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"


class OpenVSwitch:
    """ovsdb-server and ovs-vswitchd in a host of a lab. `settings` are other_config keys of the switch."""

    polling_thread = "pmd-"
    note = {}

    def __init__(self, lab, host, dpdk=False, settings=None):
        self.host = host
        self.binary = DPDK if dpdk else PLAIN
        if not os.path.exists(self.binary):
            raise Failure(f"{self.binary} is not installed")
        self.directory = pathlib.Path(lab.directory) / f"ovs-{host.name}"
        self.directory.mkdir()
        places = ("RUNDIR", "DBDIR", "LOGDIR", "SYSCONFDIR")
        self.environment = {**os.environ, **{f"OVS_{name}": str(self.directory) for name in places}}
        self.database = f"unix:{self.directory}/db.sock"
        self._start_database()
        settings = dict(settings or {})
        if dpdk:
            settings |= {"dpdk-init": "true", "dpdk-extra": "--no-pci --in-memory --no-telemetry", "dpdk-lcore-mask": hex(1 << machine.other_core()),
                         "pmd-cpu-mask": hex(1 << machine.packet_core())}
        if settings:
            self.vsctl("--no-wait", "set", "Open_vSwitch", ".", *(f'other_config:{key}="{value}"' for key, value in settings.items()))
        self._start_switch(lab)

    def _start(self, *command, log):
        with open(self.directory / log, "ab") as file:
            return self.host.start(*command, stdout=file, stderr=file, env=self.environment)

    def _start_database(self):
        run("ovsdb-tool", "create", self.directory / "conf.db", SCHEMA)
        self._start("ovsdb-server", f"--remote=p{self.database}", f"--unixctl={self.directory}/db.ctl", self.directory / "conf.db",
                    log="ovsdb-server.log")

        def ready():
            return run("ovs-vsctl", f"--db={self.database}", "--no-wait", "init", check=False).returncode == 0

        eventually(ready, "ovsdb-server serves")

    def _start_switch(self, lab):
        # What is not a polling thread stays off the packet core.
        placed = ["taskset", "-c", machine.other_core()] if self.binary == DPDK else []
        self.process = self._start(*placed, self.binary, self.database, f"--unixctl={self.directory}/vswitchd.ctl",
                                   log="ovs-vswitchd.log")

        lab.switches.append(self)  # whose logs are told when something fails

        def ready():
            if self.process.poll() is not None:
                raise Failure(f"ovs-vswitchd ended with {self.process.returncode}:\n{self.log()}")
            return self.appctl("version", check=False)

        eventually(ready, "ovs-vswitchd serves", deadline=60)

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        return "\n".join((self.directory / "ovs-vswitchd.log").read_text(errors="replace").splitlines()[-20:])

    def vsctl(self, *arguments, **options):
        return run("ovs-vsctl", f"--db={self.database}", "--timeout=60", *arguments, timeout=90, **options).stdout

    def ofctl(self, *arguments, timeout=300, **options):
        return run("ovs-ofctl", "-O", "OpenFlow14", *arguments, timeout=timeout, **options).stdout

    def appctl(self, *arguments, **options):
        return run("ovs-appctl", "-t", f"{self.directory}/vswitchd.ctl", *arguments, **options).stdout

    def bridge_name(self, name):
        return f"unix:{self.directory}/{name}.mgmt"

    def add_bridge(self, name, *, secure=True):
        fail_mode = "secure" if secure else "standalone"
        self.vsctl("add-br", name, "--", "set", "bridge", name, "datapath_type=netdev", f"fail_mode={fail_mode}")

    def add_port(self, bridge, name, *words, ofport=None):
        """Adds a port; words are columns of its interface. Failure if the switch says it has a problem with it.

        Does not wait until the whole configuration is carried out, as upcalls may hold that up for long; only until the port has its
        number."""
        words = [*words] + ([f"ofport_request={ofport}"] if ofport else [])
        self.vsctl("--no-wait", "add-port", bridge, name, *(["--", "set", "interface", name, *words] if words else []))

        def known():
            return self.vsctl("--columns=ofport,error", "--format=csv", "--no-headings", "list", "interface", name).strip() != "[],[]"

        eventually(known, f"port {name} is there", deadline=120)
        error = self.vsctl("get", "interface", name, "error").strip()
        if error not in ("[]", '""'):
            raise Failure(f"Open vSwitch, port {name}: {error}\n{self.log()}")

    def rules(self, bridge, rules):
        path = self.directory / "rules.txt"
        path.write_text("\n".join(rules) + "\n")
        self.ofctl("add-flows", self.bridge_name(bridge), path)

    def transmitted(self, port):
        """Packets that the port has sent, now (the database knows only every 5 s)."""
        shown = self.appctl("dpctl/show", "-s", "netdev@ovs-netdev")
        found = re.search(rf"port \d+: {re.escape(port)} .*?TX packets:(\d+)", shown, re.DOTALL)
        if not found:
            raise Failure(f"no counters of port {port} in:\n{shown}")
        return int(found.group(1))

    def datapath_flows(self):
        return int(re.search(r"flows: (\d+)", self.appctl("dpctl/show", "netdev@ovs-netdev")).group(1))

    @contextlib.contextmanager
    def flow_counter(self):
        """A function that does what datapath_flows() does, and does not start a program each time: the daemon's control socket speaks
        JSON-RPC, whose answers follow each other without a separator."""
        decoder = json.JSONDecoder()
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(f"{self.directory}/vswitchd.ctl")

            def count():
                request = {"id": 0, "method": "dpctl/show", "params": ["netdev@ovs-netdev"]}
                control.sendall(json.dumps(request).encode())
                text = ""
                while True:
                    part = control.recv(65536)
                    if not part:
                        raise Failure(f"Open vSwitch closed its control socket\n{self.log()}")
                    text += part.decode()
                    with contextlib.suppress(ValueError):  # not all of it yet
                        return int(re.search(r"flows: (\d+)", decoder.raw_decode(text)[0]["result"]).group(1))

            yield count

    @contextlib.contextmanager
    def rule_remover(self, match):
        """A function that removes the rule of exactly this match."""
        yield lambda: self.ofctl("--strict", "del-flows", self.bridge_name("br0"), match)

    def lost(self):
        """(packets that met no flow and were lost, packets received), of all polling threads."""
        shown = self.appctl("dpif-netdev/pmd-stats-show")
        total = lambda what: sum(int(n) for n in re.findall(rf"{what}: (\d+)", shown))
        return total("miss with failed upcall"), total("packets received")
