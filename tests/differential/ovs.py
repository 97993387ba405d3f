"""A real Open vSwitch in a private directory: the oracle. It has dummy devices only and touches nothing of the machine."""
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time

import pcap
import topology

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
# More than any frame needs: which are too long is told by who compares, for each kind of port.
MTU = "mtu_request=4000"


class Refused(Exception):
    """The switch did not take something; the text says why."""


class UnixControl:
    """A connection to a daemon's control socket: JSON-RPC, as ovs-appctl speaks it."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.buffer = ""
        self.decoder = json.JSONDecoder()
        self.ident = 0

    def call(self, method, *arguments):
        self.ident += 1
        request = {"id": self.ident, "method": method, "params": list(arguments)}
        self.socket.sendall(json.dumps(request).encode())
        while True:
            try:
                reply, end = self.decoder.raw_decode(self.buffer)
            except ValueError:
                data = self.socket.recv(1 << 16)
                if not data:
                    raise ConnectionError(f"ovs-vswitchd closed its control socket during {method}") from None
                self.buffer += data.decode()
                continue
            self.buffer = self.buffer[end:].lstrip()
            if reply.get("error"):
                raise Refused(reply["error"].strip())
            return reply["result"]


class OpenVSwitch:
    name = "Open vSwitch"

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True)
        self.environment = dict(os.environ)
        for variable in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"):
            self.environment[variable] = str(self.directory)
        self.processes = []
        self.settings = {}
        try:
            self._start()
            self._add_ports()
        except BaseException:
            self.close()
            raise

    def _tool(self, *command, **options):
        done = subprocess.run([str(word) for word in command], env=self.environment, capture_output=True, text=True, timeout=60, **options)
        if done.returncode != 0:
            raise Refused(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def _daemon(self, *command):
        process = subprocess.Popen([str(word) for word in command], env=self.environment, cwd=self.directory,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.processes.append(process)

    def _start(self):
        where = self.directory
        if not shutil.which("ovs-vswitchd"):
            raise Refused("ovs-vswitchd is not installed (package openvswitch-switch)")
        self._tool("ovsdb-tool", "create", where / "conf.db", SCHEMA)
        self._daemon("ovsdb-server", where / "conf.db", f"--remote=punix:{where}/db.sock", f"--unixctl={where}/ovsdb.ctl",
                     f"--log-file={where}/ovsdb-server.log", "-vconsole:off")
        self._wait_for(where / "db.sock")
        self._vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", "other_config:vlan-limit=0")
        self._daemon("ovs-vswitchd", f"unix:{where}/db.sock", "--enable-dummy=override", "--disable-system", "--no-chdir",
                     f"--unixctl={where}/vswitchd.ctl", f"--log-file={where}/ovs-vswitchd.log", "-vconsole:off")
        self._wait_for(where / "vswitchd.ctl")
        self.control = UnixControl(where / "vswitchd.ctl")

    @staticmethod
    def _listens(path):
        """A socket is there a moment before anybody listens to it."""
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def _wait_for(self, path):
        end = time.monotonic() + 20
        while not self._listens(path):
            if any(process.poll() is not None for process in self.processes) or time.monotonic() > end:
                raise Refused(f"Open vSwitch did not start: no {path.name}; see the logs in {self.directory}")
            time.sleep(0.01)

    def _vsctl(self, *arguments):
        return self._tool("ovs-vsctl", f"--db=unix:{self.directory}/db.sock", *arguments)

    def _add_ports(self):
        words = []
        for bridge in topology.BRIDGES:
            words += ["--", "add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=dummy", "fail-mode=secure",
                      "--", "set", "interface", bridge, MTU, f"options:tx_pcap={self._capture(bridge)}"]
        for port in topology.PORTS:
            words += ["--", "add-port", port.bridge, port.name, "--", "set", "interface", port.name, f"ofport_request={port.number}"]
            if port.peer:
                words += ["type=patch", f"options:peer={port.peer}"]
            else:
                words += ["type=dummy", MTU, f"options:tx_pcap={self._capture(port.name)}"]
        self._vsctl(*words[1:])
        self.tails = {name: pcap.Tail(self._capture(name)) for name in (*topology.DUMMIES, *topology.BRIDGES)}

    def _capture(self, port):
        return self.directory / f"{port}.pcap"

    def configure(self, settings):
        """Settings by port name, see topology.random_settings()."""
        words = []
        for name, wanted in settings.items():
            before = self.settings.get(name, topology.PortSettings())
            if wanted == before:
                continue
            words += ["--", "set", "port", name,
                      f"vlan_mode={wanted.mode or '[]'}", f"tag={wanted.tag if wanted.tag else '[]'}",
                      f"trunks=[{','.join(map(str, wanted.trunks))}]",
                      f"other_config:priority-tags={'if-nonzero' if wanted.priority_tags else 'never'}",
                      f"protected={'true' if wanted.protected else 'false'}"]
            bridge = next(port.bridge for port in topology.PORTS if port.name == name)
            for flag in topology.FLAGS:
                if (flag in wanted.flags) != (flag in before.flags):
                    word = flag if flag in wanted.flags else flag.removeprefix("no-")
                    self._tool("ovs-ofctl", "mod-port", self._bridge(bridge), name, word)
        if words:
            self._vsctl(*words[1:])
        self.settings = dict(settings)

    def _bridge(self, bridge):
        return f"unix:{self.directory}/{bridge}.mgmt"

    def load(self, bridge, rules, openflow):
        """Replaces the rules of a bridge; raises Refused if it does not like them."""
        text = "delete\n" + "\n".join(rules) + "\n"
        bundle = ["--bundle"] if openflow >= "OpenFlow14" else []  # before, OpenFlow has none
        self._tool("ovs-ofctl", "-O", openflow, *bundle, "add-flows", self._bridge(bridge), "-", input=text)

    def forget(self):
        """Forgets learned addresses and cached flows."""
        for bridge in topology.BRIDGES:
            self.control.call("fdb/flush", bridge)
        self.control.call("revalidator/purge")

    def trace(self, bridge, port_number, frame):
        """The text of ofproto/trace. Learns addresses, as the frame itself would."""
        return self.control.call("ofproto/trace", bridge, f"in_port={port_number}", "--names", frame.hex())

    def receive(self, port, frame):
        """Lets a frame come in and returns what went out: {port: [frames]}."""
        self.control.call("revalidator/purge")
        before = self._lookups()
        self.control.call("netdev-dummy/receive", port, frame.hex())
        end = time.monotonic() + 5
        # The main thread takes the frame from its queue, and answers us only when it is through with it.
        while self._lookups() == before:
            if time.monotonic() > end:
                raise Refused(f"Open vSwitch did not look at a frame that came in by {port}")
        return {name: frames for name, tail in self.tails.items() if (frames := tail.frames())}

    def _lookups(self):
        text = self.control.call("dpif/show")
        hit, missed = re.search(r"hit:(\d+) missed:(\d+)", text).groups()
        return int(hit) + int(missed)

    def log(self):
        path = self.directory / "ovs-vswitchd.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def close(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
