"""What dpctl tells of the datapath."""
import json
import re

from lab import Failure, Lab, eventually

ETHERNET = "0200000000020200000000" + "01"
# Three frames that meet three rules, which look at three sets of fields.
TO_ADDRESS = ETHERNET + "0800" + "4500002400004000401100000a0000090a000001" + "1388138800100000" + "00" * 22
TO_PORT = ETHERNET + "0800" + "4500002400004000401100000a0000090a090002" + "1388003500100000" + "00" * 22
OF_TYPE = ETHERNET + "88b5" + "00" * 46
RULES = ["priority=3,ip,nw_dst=10.0.0.1,actions=output:2", "priority=2,udp,tp_dst=53,actions=output:2", "priority=1,dl_type=0x88b5,actions=drop"]


def _counters(switch):
    counters = json.loads(switch.dpctl("stats", "--format", "json"))
    return {name: int(value) for name, value in counters.items() if str(value).isdigit()}


def _forward(switch):
    """Each frame 20 times, by turns; the counters once all are there."""
    before = _counters(switch)
    for _ in range(20):
        switch.dpctl("receive", "p1", TO_ADDRESS, TO_PORT, OF_TYPE)
    seen = lambda counters: counters.get("hits", 0) + counters.get("misses", 0)
    eventually(lambda: seen(_counters(switch)) == seen(before) + 60, lambda: f"60 lookups are counted: {_counters(switch)}")
    return _counters(switch)


def scene_masks_and_probes():
    """Masks, probes per packet and narrowed flows; with one mask allowed, flows of all three kinds share it."""
    with Lab() as lab:
        switch = lab.switch(lab.host("sw"))
        switch.vsctl("add-br", "br0", "--", "add-port", "br0", "p1", "type=dummy", "--", "add-port", "br0", "p2", "type=dummy")
        switch.rules("br0", *RULES)
        counters = _forward(switch)
        if counters["flows"] != 3 or counters["masks"] != 3 or counters.get("narrowed", 0) != 0 or counters["masksVisited"] == 0:
            raise Failure(f"three flows under three masks, none narrowed: {counters}")
        per_packet = counters["masksVisited"] / (counters["hits"] + counters["misses"])
        shown = switch.dpctl("show")
        if f"masks: hit:{counters['masksVisited']} total:3 hit/pkt:{per_packet:.2f} narrowed:0" not in shown:
            raise Failure(f"not what the counters say, {counters}:\n{shown}")
        masks = switch.dpctl("masks")
        for field in ("nw_dst", "tp_dst", "eth_type"):
            if not re.search(rf"\b{field}\b", masks):
                raise Failure(f"no mask has {field}:\n{masks}")

        switch.stop()
        switch.kind = switch.kind.with_lookup("one-mask")
        switch.start()
        counters = _forward(switch)
        if counters["narrowed"] == 0 or counters["masks"] >= 3:
            raise Failure(f"one mask and those that take any flow, some flows narrowed: {counters}")
        switch.check_balance()
