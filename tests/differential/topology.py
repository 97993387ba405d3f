"""What both switches are given: bridges, ports, VLAN modes and port flags."""
import dataclasses

LOCAL = 65534


@dataclasses.dataclass(frozen=True)
class PortPlan:
    name: str
    bridge: str
    number: int
    peer: str = ""  # of a patch port


BRIDGES = ("br0", "br1")
PORTS = (
    *(PortPlan(f"p{n}", "br0", n) for n in (1, 2, 3, 4)),
    PortPlan("patch0", "br0", 5, peer="patch1"),
    *(PortPlan(f"q{n}", "br1", n) for n in (1, 2)),
    PortPlan("patch1", "br1", 3, peer="patch0"),
)
DUMMIES = tuple(port.name for port in PORTS if not port.peer)


def ports_of(bridge):
    return [port for port in PORTS if port.bridge == bridge]


@dataclasses.dataclass(frozen=True)
class PortSettings:
    """What a table may change on a port."""

    mode: str = ""  # access, trunk, native-tagged, native-untagged; "": trunk of all VLANs
    tag: int = 0
    trunks: tuple = ()
    priority_tags: bool = False
    protected: bool = False
    flags: tuple = ()  # of "no-receive", "no-forward", "no-flood", "no-packet-in"


FLAGS = ("no-receive", "no-forward", "no-flood", "no-packet-in")


def random_settings(rng):
    """Settings by port name. Most tables have plain ports: most of what is tested does not look at them."""
    chosen = {}
    vlans, flags = rng.random() < 0.4, rng.random() < 0.15
    for port in PORTS:
        settings = PortSettings()
        if vlans and rng.random() < 0.7:
            mode = rng.choice(("access", "access", "trunk", "native-tagged", "native-untagged"))
            settings = dataclasses.replace(
                settings,
                mode=mode,
                tag=rng.choice((10, 20)) if mode != "trunk" else 0,
                trunks=() if mode == "access" else rng.choice(((), (10,), (10, 20), (0, 30), (20, 30))),
                priority_tags=rng.random() < 0.15,
                protected=rng.random() < 0.15,
            )
        if flags and rng.random() < 0.4 and not port.peer:
            settings = dataclasses.replace(settings, flags=(rng.choice(FLAGS),))
        chosen[port.name] = settings
    return chosen
