"""The kinds of ports by which a host can be wired to a switch, and the ways by which packets find their flows there.

A scene that is about packets crossing the switch runs once on each kind of port, and once with each way of lookup, which takes another
kind of port from scene to scene: in the end every kind has met every way. A scene says `add-port BRIDGE DEVICE` and gets a port of the
kind that is current; what says its type or its device gets what it says.
"""
import dataclasses
import itertools
import os


class Missing(Exception):
    """A scene cannot be played on this machine; the text says what is missing."""


class MissingKind(Missing):
    """Nor can others: this build or kernel has no such ports, or no kernel path."""


# Where changes are landed nothing may be left out unseen: there a kind that is missing is a failure (.ci/run).
ALL_WANTED = os.environ.get("VSWITCH_ALL_KINDS", "") not in ("", "no")


def is_missing(error):
    """Whether a refusal means that."""
    return "built without" in error or "the kernel has no" in error


# Arguments of vswitchd, by the name of the way of lookup.
LOOKUPS = {
    "all": (),
    "no-lookup-shortcuts": ("--lookup=none",),
    "cache-only": ("--lookup=cache",),
    "shallow-only": ("--lookup=shallow",),
    "one-mask": ("--max-masks=1",),
}
_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class PortKind:
    name: str
    words: tuple = ()  # of an add-port; {device} and {number} are filled in
    settings: tuple = ()  # of a vsctl set open_vswitch .
    offloads_off: tuple = ()  # of the wires' ends (ethtool -K): what such a port cannot take, or only as it is on a wire
    super_frames: bool = False  # pass through it whole
    lookup: str = "all"  # of LOOKUPS

    @property
    def label(self):
        """What tells it from other kinds in the name of a scene; "" of a plain netdev port."""
        parts = [part for part in (self.name, self.lookup) if part not in ("netdev", "all")]
        return "+".join(parts)

    @property
    def daemon(self):
        """Arguments of vswitchd."""
        return LOOKUPS[self.lookup]

    def with_lookup(self, lookup):
        return dataclasses.replace(self, lookup=lookup)

    def add_port(self, arguments):
        """Arguments of vsctl, in which each port of a device becomes one of this kind."""
        result = []
        for is_separator, command in itertools.groupby(map(str, arguments), lambda word: word == "--"):
            command = list(command)
            if not is_separator and "add-port" in command and not any(word.startswith(("type=", "device=", "options")) for word in command):
                device = command[command.index("add-port") + 2]
                number = next(_numbers)
                command += [word.format(device=device, number=number) for word in self.words]
            result += command
        return result


NETDEV = PortKind("netdev", super_frames=True)
DPDK = PortKind("dpdk", words=("type=dpdk", "dpdk-devargs=net_af_packet{number},iface={device},blocksz=4096,framesz=2048,framecnt=1024",
                               "dpdk-mbufs=8192"),
                settings=('other_config:dpdk-extra="--no-huge -m 512"',), offloads_off=("tx", "tso", "gso"))
# Each in turn for `every_port_kind`.
KINDS = [
    NETDEV,
    PortKind("afxdp", words=("type=afxdp", "umem-frames=8192")),
    # Here the kernel does not keep super-frames away.
    PortKind("afxdp-generic", words=("type=afxdp", "xdp-mode=generic", "umem-frames=8192"), offloads_off=("tso", "gso")),
    DPDK,
    PortKind("no-kernel-path", settings=("other_config:kernel-path=false",), super_frames=True),
]
current = NETDEV
_turns = itertools.count()


def every_port_kind(but=(), lookups=True):
    """Decorator: the scene runs on each kind of port, but for those named, and with each way of lookup, if `lookups`."""

    def decorate(scene):
        kinds = [kind for kind in KINDS if kind.name not in but]
        turn = next(_turns)
        others = [lookup for lookup in LOOKUPS if lookup != "all" and lookups]
        scene.port_kinds = kinds + [kinds[(turn + at) % len(kinds)].with_lookup(lookup) for at, lookup in enumerate(others)]
        return scene

    return decorate


def every_lookup(scene):
    """Decorator: the scene, which says the types of its ports itself, runs with each way of lookup."""
    scene.port_kinds = [NETDEV.with_lookup(lookup) for lookup in LOOKUPS]
    return scene


def never_met(kinds):
    """What no two of these have brought together: (name of a kind, way of lookup)."""
    met = {(kind.name, kind.lookup) for kind in kinds}
    return sorted(set(itertools.product([kind.name for kind in KINDS], LOOKUPS)) - met)
