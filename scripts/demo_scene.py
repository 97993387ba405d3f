#!/usr/bin/env python3
"""The scene that scripts/demo shows. Every step prints the command that a person would type and what it prints."""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "e2e"))
from lab import Failure, Lab  # noqa: E402

VNI = 100


def say(text):
    print(f"\n\033[1m# {text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)


def show(where, command, output):
    print(f"{where}$ {command}")
    for line in output.rstrip().splitlines():
        print(f"  {line}")
    sys.stdout.flush()


class Tool:
    """Runs a switch's command and shows it as it would be typed on that host."""

    def __init__(self, switch):
        self.switch = switch

    def __call__(self, program, *arguments):
        output = getattr(self.switch, program)(*arguments)
        words = [f"'{a}'" if re.search(r"[ ,>()]", a) else a for a in arguments]
        show(self.switch.host.name, " ".join([program, *words]), output)
        return output


def make_hosts(lab):
    say("Two hosts, joined by a veth pair as underlay; each has one workload in a namespace of its own")
    hosts = [lab.host("host1"), lab.host("host2")]
    workloads = [lab.host("work1"), lab.host("work2")]
    lab.wire(hosts[0], "underlay", hosts[1], "underlay")
    for i in (0, 1):
        hosts[i].address("underlay", f"192.0.2.{i + 1}/24")
        lab.wire(workloads[i], "eth0", hosts[i], f"tap{i + 1}")
        workloads[i].address("eth0", f"10.1.0.{i + 1}/24", mtu=1450, mac=f"02:00:00:00:01:0{i + 1}")
        print(f"host{i + 1}: underlay 192.0.2.{i + 1}; work{i + 1}: 10.1.0.{i + 1} behind tap{i + 1}")
    return hosts, workloads


def configure(tool, i):
    """Bridge, workload, tunnel and rules on one host."""
    peer = f"192.0.2.{2 - i}"
    tool("vsctl", "add-br", "br0", "fail_mode=secure")
    tool("vsctl", "add-port", "br0", f"tap{i + 1}")
    tool("vsctl", "add-port", "br0", "vx0", "type=vxlan", f"remote_ip={peer}", "key=flow")
    tool("ofctl", "add-flow", "br0", f"in_port=tap{i + 1},actions=set_field:{VNI}->tun_id,output:vx0")
    tool("ofctl", "add-flow", "br0", f"in_port=vx0,tun_id={VNI},actions=output:tap{i + 1}")


def cross(workloads):
    """Pings and TCP over the overlay."""
    output = workloads[0].ping("10.1.0.2", count=5)
    show("work1", "ping -c 5 10.1.0.2", "\n".join(output.splitlines()[-2:]))
    for client, server, address in ((0, 1, "10.1.0.2"), (1, 0, "10.1.0.1")):
        rate = workloads[client].iperf(workloads[server], address, seconds=2)
        show(f"work{client + 1}", f"iperf3 -c {address} -t 2", f"{rate / 1e9:.2f} Gbit/s received")
        if rate < 50e6:
            raise Failure(f"TCP to {address} ran at {rate / 1e6:.0f} Mbit/s only")


def check_moved(dump):
    counts = [int(n) for n in re.findall(r"n_packets=(\d+)", dump)]
    if len(counts) != 2 or min(counts) < 10:
        raise Failure(f"the counters of the rules did not move: {counts}")


def trace_both_ways(tools):
    say("Where does a packet of work1 go, and why? From the first bridge into the tunnel ...")
    flow = "in_port=tap1,icmp,dl_src=02:00:00:00:01:01,dl_dst=02:00:00:00:01:02,nw_src=10.1.0.1,nw_dst=10.1.0.2"
    into = tools[0]("ofctl", "trace", "br0", flow, "--names")
    if "tun_id=0x64" not in into:
        raise Failure("the trace does not lead into the tunnel")
    say("... and from the tunnel to the other workload")
    flow = flow.replace("in_port=tap1", f"in_port=vx0,tun_id={VNI},tun_src=192.0.2.1,tun_dst=192.0.2.2")
    out = tools[1]("ofctl", "trace", "br0", flow, "--names")
    if "Datapath actions: tap2" not in out:
        raise Failure("the trace does not lead to tap2")


def kernel_replaces(lab, host, switch):
    say("Now host2's switch is replaced by a Linux bridge with a kernel vxlan device")
    switch.vsctl("del-br", "br0")
    switch.stop()
    lab.switches.remove(switch)
    for command in (f"ip link add vx0 type vxlan id {VNI} remote 192.0.2.1 local 192.0.2.2 dstport 4789 dev underlay",
                    "ip link add br0 type bridge", "ip link set vx0 master br0", "ip link set tap2 master br0",
                    "ip link set vx0 up", "ip link set br0 up"):
        host.run(*command.split())
        show("host2", command, "")


def scene(lab):
    hosts, workloads = make_hosts(lab)
    say("Each host runs its own vswitchd")
    switches = [lab.switch(host) for host in hosts]
    tools = [Tool(switch) for switch in switches]
    for i in (0, 1):
        say(f"host{i + 1}: a bridge, the workload's port, a VXLAN port, and rules that set and match tun_id")
        configure(tools[i], i)
        tools[i]("vsctl", "show")
    say("Traffic between the workloads, across the overlay")
    cross(workloads)
    say("What the switches saw")
    for tool in tools:
        check_moved(tool("ofctl", "dump-flows", "br0"))
        tool("dpctl", "dump-flows", "--names")
    trace_both_ways(tools)
    kernel_replaces(lab, hosts[1], switches[1])
    say("The same traffic between our switch and the kernel's")
    cross(workloads)
    tools[0]("ofctl", "dump-flows", "br0")
    say("Every packet is accounted for: drops by port and reason on host1, and the books balance")
    tools[0]("dpctl", "drops")
    switches[0].check_balance()


def main():
    try:
        with Lab() as lab:
            scene(lab)
    except Failure as failure:
        print(f"\ndemo FAILED: {failure}", file=sys.stderr)
        return 1
    say("All checks passed; the namespaces are gone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
