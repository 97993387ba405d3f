"""The kinds of ports by which a host can be wired to a switch. Scenes that are about switching run on each of them.

A scene says `add-port BRIDGE DEVICE` and gets a port of the kind that is current; what says its type or its device gets what it says.
Another way of lookup (vswitchd --lookup, --max-masks) counts as a kind, too: `netdev` with another command line of the daemon.
"""
import itertools


class Missing(Exception):
    """This build or kernel has no such ports; the text says what is missing."""


def is_missing(error):
    """Whether a refusal means that."""
    return "built without" in error or "the kernel has no" in error


class PortKind:
    def __init__(self, name, words=(), daemon=(), settings=(), whole_frames=False):
        self.name = name
        self.words = words  # of an add-port; {device} and {number} are filled in
        self.daemon = daemon  # arguments of vswitchd
        self.settings = settings  # of a vsctl set open_vswitch .
        self.whole_frames = whole_frames  # frames have to come as they are on a wire: with checksums, at most as large as the MTU
        self._numbers = itertools.count(1)

    def add_port(self, arguments):
        """Arguments of vsctl, in which each port of a device becomes one of this kind."""
        result = []
        for is_separator, command in itertools.groupby(map(str, arguments), lambda word: word == "--"):
            command = list(command)
            if not is_separator and "add-port" in command and not any(word.startswith(("type=", "device=", "options")) for word in command):
                device = command[command.index("add-port") + 2]
                number = next(self._numbers)
                command += [word.format(device=device, number=number) for word in self.words]
            result += command
        return result


NETDEV = PortKind("netdev")
# Each in turn for `every_port_kind`.
KINDS = [
    NETDEV,
    PortKind("afxdp", words=("type=afxdp", "umem-frames=8192")),
    PortKind("dpdk", words=("type=dpdk", "dpdk-devargs=net_af_packet{number},iface={device},blocksz=4096,framesz=2048,framecnt=1024",
                            "dpdk-mbufs=8192"),
             settings=('other_config:dpdk-extra="--no-huge -m 512"',), whole_frames=True),
    PortKind("no-kernel-path", settings=("other_config:kernel-path=false",)),
    PortKind("no-lookup-shortcuts", daemon=("--lookup=none",)),
    PortKind("cache-only", daemon=("--lookup=cache",)),
    PortKind("one-mask", daemon=("--max-masks=1",)),
]
current = NETDEV


def every_port_kind(but=""):
    """Decorator: the scene runs once for each kind, but for one."""

    def decorate(scene):
        scene.port_kinds = [kind for kind in KINDS if kind.name != but]
        return scene

    return decorate
