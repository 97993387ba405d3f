"""The machine under the benchmarks: what it is, its clock, its cores and its huge pages."""
import contextlib
import fcntl
import functools
import os
import pathlib
import platform
import re
import subprocess
import time

HUGEPAGES = pathlib.Path("/proc/sys/vm/nr_hugepages")
LOCK = "/run/lock/vswitch-bench.lock"
TICKS = os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------- what it is


def cpu_field(name):
    found = re.search(rf"^{name}\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found.group(1).strip() if found else "unknown"


@functools.cache
def tsc_hz():
    """Ticks of the time stamp counter per second: the kernel prints twice its calibrated rate, in MHz, as BogoMIPS."""
    try:
        return float(cpu_field("bogomips")) * 5e5
    except ValueError:
        return float("nan")


def version(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except OSError:
        return "not installed"
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"


def describe(vswitchd):
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {"cpu": cpu_field("model name"), "cores": os.cpu_count(), "tsc_mhz": round(tsc_hz() / 1e6),
            "memory_gib": round(int(memory.group(1)) / 2**20, 1), "kernel": platform.release(),
            "load_average": os.getloadavg()[0],
            "versions": {"vswitch": version(str(vswitchd), "--version"),
                         "commit": version("git", "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty"),
                         "openvswitch": version("ovs-vswitchd", "--version"),
                         "dpdk": version("pkg-config", "--modversion", "libdpdk"), "iperf3": version("iperf3", "--version")}}


# ---------------------------------------------------------------- cores


def packet_core():
    """The core that only the measured forwarding thread runs on: the last one."""
    return max(os.sched_getaffinity(0))


def other_core():
    return min(os.sched_getaffinity(0))


def thread_seconds(pid):
    """User and system time of each thread of a process, in seconds."""
    seconds = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            # Nanoseconds on the CPU: finer than the ticks of stat.
            seconds[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e9
    return seconds


def cpu_seconds(pid):
    """User and system time of a process, all its threads, those that have ended too."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Meter:
    """What the threads of a process take from here on, in user space and in system calls. Of what is no process (pid None) nothing is
    known."""

    def __init__(self, pid):
        self.pid = pid
        self.start, self.used = time.monotonic(), self.cpu_seconds()

    def cpu_seconds(self):
        return cpu_seconds(self.pid) if self.pid else 0.0

    def figures(self, packets=None):
        """{share of one core, and cycles of the time stamp counter for each of so many packets}"""
        if not self.pid:
            return {}
        used, elapsed = self.cpu_seconds() - self.used, time.monotonic() - self.start
        return {"switch_cores": used / elapsed} | ({"cycles": used * tsc_hz() / packets} if packets else {})


class Theft:
    """How much of a core's time goes, from here on, to others on the same host: what the hypervisor says it withheld while the core wanted to
    run (proc_stat(5), "steal"). A core that shares its caches or its units with another machine's is slower without that."""

    def __init__(self, read=pathlib.Path("/proc/stat").read_text):
        self.read = read
        self.start = self.ticks()

    def ticks(self):
        """{core: (stolen, all)}; what guests of this machine take is counted twice by the kernel, and left out here."""
        cores = re.findall(r"^(cpu\d+) ((?:\d+ ?){8})", self.read(), re.MULTILINE)
        ticks = {core: [int(field) for field in fields.split()] for core, fields in cores}
        return {core: (fields[7], sum(fields)) for core, fields in ticks.items()}

    def percent(self):
        """Of the core that most was taken from."""
        now = self.ticks()
        shares = [(now[core][0] - stolen) / (now[core][1] - everything)
                  for core, (stolen, everything) in self.start.items() if core in now and now[core][1] > everything]
        return 100 * max(shares, default=0.0)


def resident_bytes(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def busiest(pid, name, interval=0.2):
    """The thread of a process that uses most CPU time, among those whose name contains `name` if there are such."""
    before = thread_seconds(pid)
    time.sleep(interval)
    used = {thread: seconds - before.get(thread, 0) for thread, seconds in thread_seconds(pid).items()}
    named = [thread for thread in used if name in pathlib.Path(f"/proc/{pid}/task/{thread}/comm").read_text()]
    return max(named or used, key=used.get)


def pin_polling_thread(pid, name):
    """Gives the polling thread of a process the packet core, and all others the other one. Returns the thread's id."""
    polling = busiest(pid, name)
    for thread in thread_seconds(pid):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, {packet_core() if thread == polling else other_core()})
    return polling


@contextlib.contextmanager
def on_one_core(pid):
    """Gives all threads of a process the packet core, and who asks it, and what that starts meanwhile, the other one."""
    packet, other, mine = packet_core(), other_core(), os.sched_getaffinity(0)
    for thread in thread_seconds(pid):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, {packet})
    os.sched_setaffinity(0, {other})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


# ---------------------------------------------------------------- huge pages


@contextlib.contextmanager
def only_one_run():
    """Two runs at once would measure each other."""
    with open(LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit(f"bench: another run holds {LOCK}; wait for it to end") from None
        yield


class HugePages:
    """Huge pages of the default size, added to those that are there and taken away again; others may do the same meanwhile."""

    def __init__(self):
        self.added = 0

    @staticmethod
    def size():
        return int(re.search(r"Hugepagesize:\s+(\d+) kB", pathlib.Path("/proc/meminfo").read_text()).group(1)) * 1024

    @staticmethod
    def free():
        return int(re.search(r"HugePages_Free:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1))

    def need(self, size):
        """Makes at least `size` bytes of huge pages free; SystemError if the kernel finds no memory for them."""
        pages = -(-size // self.size())
        # The kernel may find some only at the second try, and another program may take some meanwhile.
        for _ in range(10):
            missing = pages - self.free()
            if missing <= 0:
                return
            before = int(HUGEPAGES.read_text())
            HUGEPAGES.write_text(str(before + missing))
            self.added += int(HUGEPAGES.read_text()) - before
            time.sleep(0.1)
        raise SystemError(f"no memory for {pages} huge pages of {self.size() >> 20} MiB: {self.free()} are free")

    def give_back(self):
        if self.added:
            HUGEPAGES.write_text(str(max(0, int(HUGEPAGES.read_text()) - self.added)))
            self.added = 0


hugepages = HugePages()
