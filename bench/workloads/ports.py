"""Many ports."""
import time

from lab import Lab
from peers.openvswitch import OpenVSwitch
from peers.ours import Ours
from workload import Point, Required, workload


def add_all(make, count):
    def measure():
        with Lab() as lab:
            switch = make(lab, lab.host("b"))
            switch.add_bridge("br0")
            start = time.monotonic()
            for number in range(count):
                # A port that needs no device, one process each, and each waits until it is carried out.
                if make is Ours:
                    switch.vsctl("add-port", "br0", f"d{number}", "type=dummy")
                else:
                    switch.vsctl("add-port", "br0", f"d{number}", "--", "set", "interface", f"d{number}", "type=patch",
                                 "options:peer=none")
            return {"seconds": time.monotonic() - start}

    return measure


@workload("ports")
def ports(options):
    """Wall time of adding 1,000 ports one by one, one vsctl process each, every one carried out and durable when vsctl returns.

    Ours are of type dummy; Open vSwitch's are patch ports, the only kind it has that needs no device."""
    count = options.pick(1000, 100)
    required = (Required("seconds", "<=", 10),) if count == 1000 else ()
    sides = {"ours": add_all(Ours, count), "openvswitch": add_all(OpenVSwitch, count)}
    return [Point(f"ports/{count}", "seconds", "s", sides, required, better="lower")]
