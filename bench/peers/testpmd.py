"""dpdk-testpmd in io mode: receiving, copying and sending with no switch between."""
import contextlib
import re
import subprocess

import machine
from lab import Failure


@contextlib.contextmanager
def forwarding(devices, buffers, memory_mib, host=None):
    """The process that forwards from the first virtual device to the second, on one core; in a host of a lab where it needs its devices."""
    place = ["ip", "netns", "exec", host.namespace] if host else []
    main, packet = str(machine.other_core()), str(machine.packet_core())
    eal = ["-l", f"{main},{packet}", "--main-lcore", main, "--no-pci", "--in-memory", "--no-telemetry", "-m", str(memory_mib),
           *(f"--vdev={device}" for device in devices)]
    # Its output is a pipe, and is wanted line by line.
    command = [*place, "stdbuf", "-oL", "dpdk-testpmd", *eal, "--", "-i", "--forward-mode=io", f"--total-num-mbufs={buffers}", "--nb-cores=1"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)
    try:
        # Commands are read once everything is up; each answer of "show" is followed by the next prompt.
        process.stdin.write("start\n")
        read_until(process, "packet forwarding - ports=")
        yield process
        if process.poll() is None:
            process.stdin.write("stop\nquit\n")
        process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def read_until(process, text):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise Failure("dpdk-testpmd ended:\n" + "".join(lines[-15:]))


def received(process):
    """Packets received by the first port."""
    process.stdin.write("show port stats 0\n")
    lines = read_until(process, "RX-packets:")
    return int(re.search(r"RX-packets: (\d+)", lines[-1]).group(1))
