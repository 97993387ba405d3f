"""The kernel's own bridge and vxlan device."""


class KernelBridge:
    """A bridge of the kernel in a host of a lab. It has no process whose CPU time could be told."""

    pid = None

    def __init__(self, host):
        self.host = host

    def bridge(self, ports):
        self.host.run("ip", "link", "add", "br0", "type", "bridge")
        for port in ports:
            self.host.run("ip", "link", "set", port, "master", "br0")
            self.host.run("ip", "link", "set", port, "up")
        self.host.run("ip", "link", "set", "br0", "up")

    def overlay(self, port, local, remote, vni):
        self.host.run("ip", "link", "add", "vx0", "type", "vxlan", "id", vni, "remote", remote, "local", local, "dstport", 4789)
        self.bridge(["vx0", port])
