"""Crashes: kill -9 at any moment, full disks, damaged stores. What was acknowledged is there again, and nothing else."""
import json
import pathlib
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
import time

import port_kinds
from lab import BIN, Failure, Lab, Switch, eventually, run
from port_kinds import every_port_kind

# ---------------------------------------------------------------- kills at random moments


class Client(threading.Thread):
    """Changes its own bridge without pause until the daemon dies, and keeps what was acknowledged.

    `acknowledged` is the state after the last reply; `pending` is the state if the request in flight counts too.
    """

    def __init__(self, switch, seed, acknowledged):
        super().__init__()
        self.switch = switch
        self.random = random.Random(seed)
        self.acknowledged = acknowledged
        self.pending = None
        self.requests = 0
        self.problem = None

    def run(self):
        try:
            while self._one():
                self.requests += 1
        except Exception as error:  # noqa: BLE001: told by the main thread
            self.problem = error

    def _one(self):
        after = json.loads(json.dumps(self.acknowledged))
        command, stdin = self.change(after)
        self.pending = after
        done = self.switch.tool(*command, check=False, stdin=stdin)
        if done.returncode != 0:
            # The daemon may be dying: only a refusal by one that lives is a failure.
            if "cannot be reached" in done.stderr or self.switch.killed:
                return False
            raise Failure(f"{' '.join(map(str, command))}: {done.stderr}")
        self.acknowledged, self.pending = after, None
        return not self.switch.killed


class RuleClient(Client):
    """Rules of bridge br-r: {match: action}, one by one, in bulk, deleted by mask, replaced."""

    def change(self, rules):
        kind = self.random.choice(("add", "add", "modify", "bulk", "delete", "replace"))
        if kind == "add" or not rules:
            match, action = self._rule()
            rules[match] = action
            return ("ofctl", "add-flow", "br-r", f"{match},actions={action}"), None
        if kind == "modify":
            for match in rules:
                rules[match] = "IN_PORT"
            return ("ofctl", "mod-flows", "br-r", "ip,actions=in_port"), None
        if kind == "delete":
            third = self.random.randrange(4)
            for match in [m for m in rules if f"nw_dst=10.0.{third}." in m]:
                del rules[match]
            return ("ofctl", "del-flows", "br-r", f"ip,nw_dst=10.0.{third}.0/24"), None
        if kind == "replace":
            rules.clear()
        new = dict(self._rule() for _ in range(self.random.choice((10, 100, 2000))))
        rules.update(new)
        verb = "replace-flows" if kind == "replace" else "add-flows"
        return ("ofctl", verb, "br-r", "-"), "".join(f"{match},actions={action}\n" for match, action in new.items())

    def _rule(self):
        pick = self.random.randrange
        return f"priority={pick(1, 100)},ip,nw_dst=10.0.{pick(4)}.{pick(1, 255)}", self.random.choice(("drop", "LOCAL", "IN_PORT"))


class PortClient(Client):
    """Ports and bridges: {bridge: {port: tag}}. Names are never used twice, so that a number can be told to have stayed."""

    def change(self, bridges):
        names = [(bridge, port) for bridge in bridges for port in bridges[bridge]]
        kind = self.random.choice(("add", "add", "tag", "delete", "bridge", "drop bridge", "many"))
        if kind == "tag" and names:
            bridge, port = self.random.choice(names)
            bridges[bridge][port] = tag = self.random.randrange(1, 4095)
            return ("vsctl", "set", "port", port, f"tag={tag}"), None
        if kind == "delete" and names:
            bridge, port = self.random.choice(names)
            del bridges[bridge][port]
            return ("vsctl", "del-port", bridge, port), None
        if kind == "drop bridge" and len(bridges) > 1:
            bridge = self.random.choice([name for name in bridges if name != "br-p"])
            del bridges[bridge]
            return ("vsctl", "del-br", bridge), None
        command = ["vsctl"]
        bridge = self.random.choice(list(bridges))
        if kind in ("bridge", "drop bridge") and len(bridges) < 4:
            bridge = self._new_name("b")
            bridges[bridge] = {}
            command += ["add-br", bridge, "--"]
        for _ in range(5 if kind == "many" else 1):
            port, tag = self._new_name("d"), self.random.randrange(0, 4095)
            bridges[bridge][port] = tag
            command += ["add-port", bridge, port, "type=dummy", f"tag={tag}", "--"]
        return command[:-1], None

    def _new_name(self, letter):
        self.switch.names += 1
        return f"{letter}{self.switch.names}"


def _rules(switch, bridge="br-r"):
    found = {}
    for line in switch.ofctl("--no-stats", "dump-flows", bridge).splitlines():
        match, action = line.strip().split(" actions=")
        found[match] = action
    return found


def _shown(switch):
    """Bridges with their ports and tags, and numbers and addresses that must stay."""
    shown = json.loads(switch.vsctl("--format", "json", "show"))
    bridges, identity = {}, {}
    for bridge in shown["bridges"]:
        name = bridge["name"].removeprefix("bridges/")
        bridges[name] = {}
        identity[name] = (bridge["datapathId"], bridge["macInUse"])
    for port in shown["ports"]:
        name, bridge = port["name"].removeprefix("ports/"), port["bridge"].removeprefix("bridges/")
        if name != bridge:
            bridges[bridge][name] = port["vlan"]["tag"]
            identity[name] = port["ofport"]
    bridges.pop("br-r")
    return bridges, identity


def _compare(what, found, client):
    if found in (client.acknowledged, client.pending):
        return found
    def told(state):
        return None if state is None else sorted(set(map(str, state.items())) ^ set(map(str, found.items())))[:6]
    raise Failure(f"{what} after the kill are neither what was acknowledged (differs in {told(client.acknowledged)}) "
                  f"nor that with the request in flight (differs in {told(client.pending)})")


def _two_hosts(lab, middle):
    """Two hosts at devices p1 and p2 of the middle. They need no ARP: every packet is on its way at once."""
    hosts = [lab.host("h1"), lab.host("h2")]
    for i, host in enumerate(hosts, 1):
        lab.wire(host, "eth0", middle, f"p{i}")
        host.address("eth0", f"10.0.0.{i}/24", mac=f"02:00:00:00:00:0{i}")
        host.run("ip", "neigh", "add", f"10.0.0.{3 - i}", "lladdr", f"02:00:00:00:00:0{3 - i}", "dev", "eth0")
    return hosts


@every_port_kind()
def scene_kill_at_random_moments():
    # What is killed in the middle of is the same on every kind of port; what each has to do is to come back.
    least_kills, seconds = (4, 2) if port_kinds.current.label else (15, 25)
    with Lab() as lab:
        middle = lab.host("sw")
        h1, _ = _two_hosts(lab, middle)
        switch = lab.switch(middle)
        switch.names = 0
        switch.vsctl("add-br", "br-r", "fail_mode=secure", "--", "add-br", "br-p", "fail_mode=secure",
                     "--", "add-port", "br-r", "p1", "--", "add-port", "br-r", "p2")
        rules, ports = {}, {"br-p": {}}
        known, requests, whole, not_at_all = {}, 0, 0, 0
        seed = random.randrange(1 << 30)
        chance = random.Random(seed)
        kills, end = 0, time.monotonic() + seconds
        while kills < least_kills or (time.monotonic() < end and kills < 40):
            switch.killed = False
            clients = [RuleClient(switch, chance.random(), rules), PortClient(switch, chance.random(), ports)]
            for client in clients:
                client.start()
            time.sleep(chance.uniform(0.02, 0.5))  # the random moment
            switch.killed = True
            switch.stop(signal.SIGKILL)
            for client in clients:
                client.join(timeout=60)
                if client.problem:
                    raise client.problem
            switch.start()
            rules = _compare(f"seed {seed}, kill {kills}: rules", _rules(switch), clients[0])
            shown, identity = _shown(switch)
            ports = _compare(f"seed {seed}, kill {kills}: ports", shown, clients[1])
            for name, was in known.items():
                if name in identity and identity[name] != was:
                    raise Failure(f"seed {seed}: {name} was {was} and is {identity[name]} after kill {kills}")
            known = identity
            requests += sum(client.requests for client in clients)
            whole += sum(client.pending is not None and client.pending == found for client, found in zip(clients, (rules, ports)))
            not_at_all += sum(client.pending is not None and client.pending != found for client, found in zip(clients, (rules, ports)))
            kills += 1
        print(f"        {kills} kills, {requests} requests acknowledged; in flight: {whole} there whole, {not_at_all} not at all")
        if requests < 2 * kills:
            raise Failure(f"only {requests} requests between {kills} kills: this proves nothing")
        # What came back works: packets take a rule from a port that outlived the kills to another one.
        switch.rules("br-r", "icmp,actions=normal")
        for port in ("p1", "p2"):
            switch.vsctl("--timeout", "10", "wait-until", "interface", port, "error=[]")
        h1.ping("10.0.0.2", count=3)
        eventually(lambda: "n_packets=6," in switch.ofctl("dump-flows", "br-r"),
                   lambda: f"the rule counts three pings and their replies:\n{switch.ofctl('dump-flows', 'br-r')}")
        switch.check_balance()


# ---------------------------------------------------------------- forwarding over a restart

SENDER = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    for port in (8888, 9999):
        try: s.sendto(b"x" * 64, ("10.0.0.2", port))
        except OSError: pass
    time.sleep(0.0005)
"""
RECEIVER = """
import select, socket, sys
counts, sockets = {}, {}
for port in (8888, 9999):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("10.0.0.2", port)); s.setblocking(False)
    sockets[s] = port; counts[port] = 0
while True:
    for s in select.select([*sockets, sys.stdin], [], [])[0]:
        if s is sys.stdin:
            if not s.readline(): sys.exit()
            print(counts[8888], counts[9999], flush=True)
        else:
            try:
                while True: s.recv(2048); counts[sockets[s]] += 1
            except BlockingIOError: pass
"""


def _pair(lab):
    """Two hosts on a switch that lets UDP port 8888 pass and drops 9999, with many rules besides."""
    middle = lab.host("sw")
    h1, h2 = _two_hosts(lab, middle)
    switch = lab.switch(middle)
    switch.vsctl("add-br", "br0", "--", "add-port", "br0", "p1", "ofport_request=11", "--", "add-port", "br0", "p2", "ofport_request=12")
    switch.ofctl("add-flows", "br0", "-", stdin="".join(
        [f"priority=50,ip,nw_dst=172.16.{i >> 8}.{i & 255},actions=drop\n" for i in range(20000)] + ["priority=100,udp,tp_dst=9999,actions=drop\n"]))
    return switch, h1, h2


@every_port_kind()
def scene_rules_are_in_place_before_the_first_packet():
    with Lab() as lab:
        switch, h1, h2 = _pair(lab)
        receiver = h2.start("python3", "-c", RECEIVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def counts():
            receiver.stdin.write("\n")
            receiver.stdin.flush()
            return tuple(map(int, receiver.stdout.readline().split()))

        counts()
        sender = h1.start("python3", "-c", SENDER)
        eventually(lambda: counts()[0] > 50, "UDP passes")
        for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            switch.stop(how)
            if how == signal.SIGTERM and switch.process.returncode != 0:
                raise Failure(f"vswitchd ended with status {switch.process.returncode} on SIGTERM")
            before = counts()[0]
            switch.start()
            h1.ping("10.0.0.2")  # the first ping after the restart is answered
            eventually(lambda: counts()[0] > before + 100, "UDP passes after the restart")
            if counts()[1] != 0:
                raise Failure(f"{counts()[1]} packets got past a drop rule while the daemon started")
            numbers = {port: switch.vsctl("get", "interface", port, "ofport").strip() for port in ("p1", "p2")}
            if numbers != {"p1": "11", "p2": "12"}:
                raise Failure(f"port numbers after the restart: {numbers}")
        # The receiver would have seen them.
        switch.ofctl("--strict", "del-flows", "br0", "priority=100,udp,tp_dst=9999")
        eventually(lambda: counts()[1] > 50, "UDP to port 9999 passes without the rule")
        dump = switch.ofctl("dump-flows", "br0")
        if not re.search(r"n_packets=[1-9].*NORMAL", dump):
            raise Failure(f"the rule that forwards does not count:\n{dump}")
        sender.terminate()
        sender.wait(timeout=10)
        switch.check_balance()


@every_port_kind()
def scene_graceful_restart_keeps_everything():
    with Lab() as lab:
        switch, h1, _ = _pair(lab)
        h1.ping("10.0.0.2", count=3)
        switch.vsctl("set", "open_vswitch", ".", "other_config:max-idle=20000")
        switch.vsctl("br-set-external-id", "br0", "owner", "me")
        before = (_rules(switch, "br0"), switch.vsctl("show"), switch.vsctl("list", "open_vswitch"), switch.vsctl("list", "bridge"))
        switch.check_balance()
        switch.stop()
        if switch.process.returncode != 0:
            raise Failure(f"vswitchd ended with status {switch.process.returncode}")
        if (switch.directory / "run" / "vswitchd.sock").exists():
            raise Failure("the socket is there after the end")
        switch.start()
        after = (_rules(switch, "br0"), switch.vsctl("show"), switch.vsctl("list", "open_vswitch"), switch.vsctl("list", "bridge"))
        if before != after:
            raise Failure(f"a restart changed the switch:\n{before[1:]}\n--- now\n{after[1:]}")
        h1.ping("10.0.0.2", count=3)
        switch.check_balance()


# ---------------------------------------------------------------- stores that refuse


class SmallDisk(Switch):
    """A switch whose state directory is a small file system of its own, in a mount namespace that outlives the daemon."""

    def __init__(self, lab, host, kilobytes):
        state = lab.directory / f"switch-{host.name}" / "state"
        state.mkdir(parents=True)
        self.keeper = host.start("unshare", "--mount", "--propagation", "private", "sh", "-c",
                                 f"mount -t tmpfs -o size={kilobytes}k,mode=700 tmpfs {state} && echo ready && exec sleep infinity",
                                 stdout=subprocess.PIPE, text=True)
        if self.keeper.stdout.readline() != "ready\n":
            raise Failure("no tmpfs for the state directory")
        super().__init__(lab, host)
        lab.switches.append(self)

    @property
    def disk(self):
        """The small file system, seen from outside."""
        return f"/proc/{self.keeper.pid}/root{self.directory}/state"

    def inside(self, *command):
        return run("nsenter", "--mount", "-t", self.keeper.pid, *command)

    def command(self):
        return ["nsenter", "--mount", "-t", self.keeper.pid, *super().command()]


def _fill(path):
    with open(path, "wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError:
                pass


def scene_full_disk():
    with Lab() as lab:
        switch = SmallDisk(lab, lab.host("sw"), 2048)
        switch.vsctl("add-br", "br0", "--", "add-port", "br0", "d1", "type=dummy")
        switch.ofctl("add-flow", "br0", "in_port=d1,actions=drop")
        _fill(f"{switch.disk}/filler")
        before = (switch.vsctl("show"), _rules(switch, "br0"))
        many = "".join(f"ip,nw_dst=10.{i >> 16}.{i >> 8 & 255}.{i & 255},actions=drop\n" for i in range(50000))
        for command, stdin in ((("ofctl", "add-flows", "br0", "-"), many), (("ofctl", "replace-flows", "br0", "-"), many)):
            done = switch.tool(*command, stdin=stdin, check=False)
            if done.returncode != 1 or len(done.stderr.splitlines()) != 1 or "full" not in done.stderr:
                raise Failure(f"{' '.join(command)} on a full disk: exit status {done.returncode}\n{done.stderr}")
            if (switch.vsctl("show"), _rules(switch, "br0")) != before:
                raise Failure(f"{' '.join(command)} was refused on a full disk and changed the switch")
        # Until the last byte of the log is used, small changes may fit; then they are refused, too.
        refused = None
        for i in range(2000):
            done = switch.tool("vsctl", "add-port", "br0", f"x{i}", "type=dummy", check=False)
            if done.returncode != 0:
                refused = done
                break
        if refused is None or "full" not in refused.stderr or f"x{i}" in switch.vsctl("list-ports", "br0").split():
            raise Failure(f"adding ports on a full disk: {refused}")
        shown = (switch.vsctl("show"), _rules(switch, "br0"))
        switch.inside("rm", f"{switch.directory}/state/filler")
        switch.vsctl("add-port", "br0", "fits", "type=dummy", "--", "del-port", "br0", "fits")
        switch.dpctl("receive", "d1", "ffffffffffff0a0000000001" + "0800" + "00" * 46)
        # And what is on the disk is what was shown.
        switch.stop(signal.SIGKILL)
        switch.start()
        if (switch.vsctl("show"), _rules(switch, "br0")) != shown:
            raise Failure("the store holds something other than what was acknowledged")
        switch.check_balance()


def _refused(lab, command, *words):
    """The daemon does not start: status 1 and a line that holds the words."""
    done = run(*command, check=False, timeout=15)
    lines = done.stderr.splitlines()
    if done.returncode != 1 or not lines or any(word not in lines[-1] for word in words):
        raise Failure(f"vswitchd starts, or refuses without {words}: exit status {done.returncode}\n{done.stderr}")
    return done


def scene_stores_that_are_refused():
    with Lab() as lab:
        host = lab.host("sw")
        switch = lab.switch(host)
        switch.vsctl("add-br", "br0")
        switch.ofctl("add-flows", "br0", "-", stdin="".join(f"priority={i},ip,actions=drop\n" for i in range(1, 500)))
        # SIGTERM folds the log into the database.
        switch.stop()
        state = switch.directory / "state"
        good = lab.directory / "good"
        shutil.copytree(state, good)
        command = ["ip", "netns", "exec", host.namespace, *switch.command()]

        def restore():
            shutil.rmtree(state)
            shutil.copytree(good, state)

        def newer(path):
            with sqlite3.connect(path) as database:
                database.execute("PRAGMA user_version = 99")
            database.close()

        def garbage(path):
            data = bytearray(path.read_bytes())
            for i in range(4096 + 1000, len(data), 4096):
                data[i:i + 64] = bytes(64 * [0xa5])
            path.write_bytes(data)

        def one_bit(path):
            data = bytearray(path.read_bytes())
            at = data.rindex(b"br0")  # in the row of a rule
            data[at] ^= 1
            path.write_bytes(data)

        for damage, word in ((newer, "newer"), (garbage, "corrupt"), (one_bit, "corrupt"), (lambda path: path.write_text("hello"), "not a vswitch store")):
            restore()
            for log in state.glob("*-wal"):
                log.unlink()
            damage(state / "vswitch.db")
            damaged = (state / "vswitch.db").read_bytes()
            _refused(lab, command, str(state / "vswitch.db"), word)
            if (state / "vswitch.db").read_bytes() != damaged:
                raise Failure(f"a store that was refused ({word}) has been changed")
        restore()
        switch.start()
        if len(_rules(switch, "br0")) != 500:
            raise Failure("the good store does not come back")


def scene_read_only_state_directory():
    with Lab() as lab:
        switch = SmallDisk(lab, lab.host("sw"), 2048)
        switch.vsctl("add-br", "br0")
        switch.stop()
        switch.inside("mount", "-o", "remount,ro", f"{switch.directory}/state")
        _refused(lab, ["ip", "netns", "exec", switch.host.namespace, *switch.command()], f"{switch.directory}/state", "Read-only")
        switch.inside("mount", "-o", "remount,rw", f"{switch.directory}/state")
        switch.start()
        if "br0" not in switch.vsctl("list-br"):
            raise Failure("br0 is gone")


def scene_two_daemons_on_the_same_directories():
    with Lab() as lab:
        host = lab.host("sw")
        switch = lab.switch(host)
        switch.vsctl("add-br", "br0")
        start = ["ip", "netns", "exec", host.namespace, BIN / "vswitchd"]
        run_dir, state = switch.directory / "run", switch.directory / "state"
        _refused(lab, [*start, "--run-dir", run_dir, "--state-dir", state], str(run_dir), str(switch.process.pid))
        _refused(lab, [*start, "--run-dir", run_dir, "--state-dir", lab.directory / "other"], str(run_dir), str(switch.process.pid))
        _refused(lab, [*start, "--run-dir", lab.directory / "other", "--state-dir", state], str(state), "in use")
        # The first one does not notice, and the files of a daemon that was killed stop nobody.
        switch.vsctl("add-br", "br1")
        switch.stop(signal.SIGKILL)
        switch.start()
        if switch.vsctl("list-br").split() != ["br0", "br1"]:
            raise Failure("the first daemon lost something")


def _threads(switch):
    return len(list(pathlib.Path(f"/proc/{switch.process.pid}/task").iterdir()))


def scene_a_large_load_that_is_cut_off():
    """Either end goes in the middle of a load of many rules: all of them are there, or none."""
    count = 100_000
    lines = [f"priority={1 + n % 60000},udp,nw_dst=10.{n >> 16}.{n >> 8 & 255}.{n & 255},actions=output:1\n" for n in range(count)]
    with Lab() as lab:
        switch = lab.switch(lab.host("sw"))
        switch.vsctl("add-br", "br0", "fail_mode=secure")
        switch.ofctl("add-flow", "br0", "table=3,actions=drop")
        rules = lambda: len(switch.ofctl("dump-flows", "br0", "--no-stats", timeout=60).splitlines())
        before, threads = rules(), _threads(switch)
        for share in (0.1, 0.5, 0.99):
            loader = subprocess.Popen([BIN / "ofctl", "--server", switch.server, "add-flows", "br0", "-"], stdin=subprocess.PIPE,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
            loader.stdin.writelines(lines[:int(share * count)])
            loader.stdin.flush()
            loader.kill()
            loader.wait(timeout=10)
            loader.stdin.close()
        eventually(lambda: _threads(switch) <= threads + 2, lambda: f"{_threads(switch)} threads, {threads} before")
        if rules() != before:
            raise Failure(f"{rules()} rules, {before} before loads that nobody finished")
        # A wrong line at the very end of what is written ahead.
        done = switch.tool("ofctl", "add-flows", "br0", "-", stdin="".join(lines) + "actions=fly\n", check=False, timeout=60)
        if done.returncode != 1 or f":{count + 1}: " not in done.stderr or rules() != before:
            raise Failure(f"a wrong last line: {done.stderr}")
        for delay in (0.05, 0.2, 0.4, 0.6, 0.8, 1.2):
            loader = threading.Thread(target=switch.tool, args=("ofctl", "add-flows", "br0", "-"),
                                      kwargs={"stdin": "".join(lines), "check": False, "timeout": 60})
            loader.start()
            time.sleep(delay)
            switch.stop(signal.SIGKILL)
            loader.join()
            switch.start()
            found = rules()
            if found not in (before, before + count):
                raise Failure(f"{found} rules after a kill in the middle of {count}, {before} before it")
            switch.ofctl("del-flows", "br0", "table=0", timeout=60)
        switch.ofctl("add-flows", "br0", "-", stdin="".join(lines), timeout=60)
        if rules() != before + count:
            raise Failure(f"{rules()} rules after all")
