"""A lab of network namespaces for end-to-end tests and the demo: hosts, wires, switches, traffic.

Everything a Lab makes carries the process id in its name, so that labs run side by side, and is taken down by close(), whatever
happened. Nothing outside the lab's own namespaces is touched.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

import port_kinds

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("VSWITCH_BIN", ROOT / "build" / "bin"))


class Failure(AssertionError):
    """Something was not as it should be; the text says what."""


def run(*command, check=True, timeout=60, stdin=None):
    """Runs a command and returns the finished process; raises Failure with its output if it fails and `check`."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, input=stdin)
    except subprocess.TimeoutExpired:
        raise Failure(f"{' '.join(words)}: no answer within {timeout} s") from None
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done


def eventually(condition, what, deadline=10.0):
    """Polls until condition() is true; Failure after `deadline` seconds. Returns what the condition returned."""
    end = time.monotonic() + deadline
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise Failure(f"not within {deadline:g} s: {what() if callable(what) else what}")
        time.sleep(0.02)


def least(rate):
    """What may be asked of a machine that others work on, too, where an idle one is to give this rate."""
    return rate / max(1.0, os.getloadavg()[0] / os.cpu_count())


class Host:
    """A network namespace, seen as a host."""

    def __init__(self, lab, name):
        self.lab = lab
        self.name = name
        self.namespace = f"vs{os.getpid()}{name}"
        run("ip", "netns", "add", self.namespace)
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *command, **options):
        return run("ip", "netns", "exec", self.namespace, *command, **options)

    def start(self, *command, **options):
        """Starts a program that the lab ends."""
        process = subprocess.Popen(["ip", "netns", "exec", self.namespace, *map(str, command)], **options)
        self.lab.processes.append(process)
        return process

    def address(self, device, *addresses, mtu=None, mac=None):
        """Gives a device addresses and takes it up. IPv6 addresses are usable at once (no duplicate detection)."""
        if mtu:
            self.run("ip", "link", "set", device, "mtu", mtu)
        if mac:
            self.run("ip", "link", "set", device, "address", mac)
        for address in addresses:
            nodad = ["nodad"] if ":" in address else []
            self.run("ip", "address", "add", address, "dev", device, *nodad)
        self.run("ip", "link", "set", device, "up")

    def ping(self, address, count=1, size=56, expect=True, dont_fragment=False, timeout=2):
        """Pings; Failure unless every reply came (expect) or none did (not expect). Returns ping's output."""
        options = ["-c", count, "-s", size, "-i", 0.05, "-W", timeout]
        if dont_fragment:
            options += ["-M", "do"]
        if expect and count > 1:
            # Else ping waits for the last reply no longer than twice as long as for the others. (It sends on until as many
            # replies have come as are wanted; what counts is that the first `count` are answered.)
            options += ["-w", timeout + count // 20 + 1]
        done = self.run("ping", *options, address, check=False, timeout=count * (timeout + 1) + 10)
        answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=", done.stdout)}
        all_back = answered.issuperset(range(1, count + 1))
        if expect and not all_back:
            raise Failure(f"{self.name}: ping {address} ({size} bytes): replies missing\n{done.stdout}{done.stderr}")
        if not expect and " 0 received" not in done.stdout:
            raise Failure(f"{self.name}: ping {address} ({size} bytes) was answered and should not be\n{done.stdout}")
        return done.stdout

    def iperf(self, server, address, seconds=2, options=()):
        """TCP to an iperf3 server started on `server`; returns bits per second received by it."""
        return self._iperf(server, address, seconds, options)["sum_received"]["bits_per_second"]

    def iperf_both_ways(self, server, address, seconds=1):
        """TCP to and from `server` at the same time; returns bits per second received by the slower of the two."""
        end = self._iperf(server, address, seconds, ["--bidir"])
        return min(end[what]["bits_per_second"] for what in ("sum_received", "sum_received_bidir_reverse"))

    def _iperf(self, server, address, seconds, options):
        listener = server.start("iperf3", "-s", "-1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(lambda: ":5201" in server.run("ss", "-ltn").stdout, f"iperf3 listens on {server.name}")
        done = self.run("iperf3", "-J", "-c", address, "-t", seconds, *options, timeout=seconds + 30, check=False)
        report = json.loads(done.stdout or "{}")
        if done.returncode != 0 or "end" not in report:
            raise Failure(f"{self.name}: iperf3 to {address}: {report.get('error', done.stdout + done.stderr)}")
        listener.wait(timeout=10)
        return report["end"]

    def counters(self, device):
        done = self.run("ip", "-j", "-s", "link", "show", device)
        return json.loads(done.stdout)[0]["stats64"]


class Switch:
    """A vswitchd in a host, with its own directories."""

    def __init__(self, lab, host, name=None):
        self.lab = lab
        self.host = host
        self.directory = lab.directory / (name or f"switch-{host.name}")
        self.directory.mkdir(exist_ok=True)
        self.process = None
        self.kind = port_kinds.current
        self.start()
        for setting in self.kind.settings:
            self.vsctl("set", "open_vswitch", ".", setting)

    @property
    def server(self):
        return f"unix:{self.directory}/run/vswitchd.sock"

    def command(self):
        return [BIN / "vswitchd", "--run-dir", self.directory / "run", "--state-dir", self.directory / "state", *self.kind.daemon]

    def start(self):
        log = open(self.directory / "vswitchd.log", "ab")
        self.process = self.host.start(*self.command(), stdout=log, stderr=log)
        log.close()

        def ready():
            if self.process.poll() is not None:
                raise Failure(f"vswitchd ended with {self.process.returncode}:\n{self.log()}")
            return self.tool("vsctl", "show", check=False).returncode == 0

        eventually(ready, "vswitchd serves")

    def log(self):
        return (self.directory / "vswitchd.log").read_text(errors="replace")

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            # ip netns exec execs: the process is vswitchd itself.
            self.process.send_signal(how)
        self.process.wait(timeout=20)

    def tool(self, program, *arguments, **options):
        return run(BIN / program, "--server", self.server, *arguments, **options)

    def vsctl(self, *arguments, **options):
        done = self.tool("vsctl", *self.kind.add_port(arguments), check=False, **options)
        if self.kind.words and port_kinds.is_missing(done.stderr):
            raise port_kinds.MissingKind(done.stderr.strip())
        if done.returncode != 0:
            raise Failure(f"vsctl {' '.join(map(str, arguments))}: exit status {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
        return done.stdout

    def ofctl(self, *arguments, **options):
        return self.tool("ofctl", *arguments, **options).stdout

    def dpctl(self, *arguments, **options):
        return self.tool("dpctl", *arguments, **options).stdout

    def rules(self, bridge, *rules):
        """Replaces all rules of the bridge."""
        self.ofctl("replace-flows", bridge, "-", stdin="\n".join(rules) + "\n")

    def port_statistics(self, bridge, port):
        """The counters of a port by their API names (rxPackets, txDropped, ...), as numbers."""
        ports = json.loads(self.ofctl("dump-ports", bridge, port, "--format", "json"))["ports"]
        return {name: int(value) for name, value in ports[0]["statistics"].items()}

    def check_balance(self):
        """Every packet is accounted for, once traffic has stopped."""

        def balanced():
            # Its exit status tells the same, for this moment.
            rows = json.loads(self.tool("dpctl", "balance", "--format", "json", check=False).stdout).get("balances", [])
            number = lambda row, key: int(row.get(key, 0))
            for row in rows:
                made = number(row, "received") + number(row, "injected") + number(row, "copies")
                ended = number(row, "sent") + number(row, "consumed") + number(row, "dropped") + number(row, "queued")
                if made != ended:
                    self._imbalance = row
                    return False
            return True

        self._imbalance = None
        eventually(balanced, lambda: f"the books balance: {self._imbalance}", deadline=5)


class Lab:
    """Use as a context manager: `with Lab() as lab:`."""

    def __init__(self):
        self.hosts = []
        self.switches = []
        self.processes = []
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="vswitch-lab-"))
        self._wires = 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None and not issubclass(kind, port_kinds.Missing):
            self.tell_logs()
        self.close()

    def tell_logs(self):
        for switch in self.switches:
            tail = switch.log().splitlines()[-30:]
            if tail:
                print(f"--- last log lines of {switch.directory.name}")
                print("\n".join(tail))

    def host(self, name):
        host = Host(self, name)
        self.hosts.append(host)
        return host

    def switch(self, host, name=None):
        switch = Switch(self, host, name)
        self.switches.append(switch)
        return switch

    def wire(self, a, device_a, b, device_b):
        """A veth pair between two hosts, both ends up."""
        self._wires += 1
        first, second = f"v{os.getpid()}a{self._wires}"[-15:], f"v{os.getpid()}b{self._wires}"[-15:]
        # Made inside a's namespace, so that nothing appears outside the lab.
        a.run("ip", "link", "add", first, "type", "veth", "peer", "name", second, "netns", b.namespace)
        a.run("ip", "link", "set", first, "name", device_a)
        b.run("ip", "link", "set", second, "name", device_b)
        a.run("ip", "link", "set", device_a, "up")
        b.run("ip", "link", "set", device_b, "up")
        off = [word for offload in port_kinds.current.offloads_off for word in (offload, "off")]
        if off:
            for host, device in ((a, device_a), (b, device_b)):
                host.run("ethtool", "-K", device, *off, check=False)

    def close(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for host in reversed(self.hosts):
            run("ip", "netns", "del", host.namespace, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
