"""The pools that rules and frames draw their values from. They are small, so that random rules and random frames meet."""
import ipaddress

UNICAST_MACS = ("0a:00:00:00:00:01", "0a:00:00:00:00:02", "0a:00:00:00:00:03", "0a:00:00:00:01:01")
MACS = UNICAST_MACS + UNICAST_MACS + ("ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:05", "33:33:00:00:00:01", "01:80:c2:00:00:00")
VIDS = (0, 10, 20, 30, 10, 20, 4095)
PCPS = (0, 0, 3, 7)
IPV4S = ("10.0.0.1", "10.0.0.2", "10.0.1.1", "192.168.0.1", "224.0.0.5", "0.0.0.0")
IPV6S = ("fd00::1", "fd00::2", "fd00:0:1::1", "fe80::1", "ff02::1", "::")
TOSES = (0, 0, 0x20, 0xB8, 0xB9, 0x03, 0x02)
TTLS = (64, 64, 255, 2, 1, 0)
LABELS = (0, 0, 0x12345, 0xFFFFF)
PORTS = (80, 443, 53, 1000, 1001, 0, 65535)
TCP_FLAGS = (0x002, 0x012, 0x010, 0x004, 0x001, 0x1FF)
ICMP_TYPES = (8, 0, 3, 128, 129, 134)
ICMP_CODES = (0, 0, 1)
ARP_OPS = (1, 1, 2, 2, 3, 0x0101, 0)
WORDS = (0, 1, 2, 3, 0xFF, 0xFFFFFFFF)  # registers and metadata


def ipv4(text):
    return ipaddress.IPv4Address(text).packed


def ipv6(text):
    return ipaddress.IPv6Address(text).packed
