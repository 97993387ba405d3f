#!/usr/bin/env python3
"""Checks that #include lines follow the one-way rule of docs/architecture.md: a folder includes only what stands below it.

Also: only vswitchd/openflow sees libopenvswitch, only vswitchd/rpc and cli see gRPC and protobuf, only vswitchd/store sees SQLite, only
datapath/vport/dpdk sees DPDK, only datapath/vport/afxdp sees libxdp, only that and datapath/kernel_path
see libbpf.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# folder -> folders of ours that it may include (besides itself)
ALLOWED = {
    "datapath/base": [],
    "datapath/packet": ["datapath/base"],
    "datapath/flow": ["datapath/base", "datapath/packet"],
    "datapath/tunnel": ["datapath/base", "datapath/packet", "datapath/flow"],
    "datapath/actions": ["datapath/base", "datapath/packet", "datapath/flow"],
    "datapath/flow_table": ["datapath/base", "datapath/packet", "datapath/flow", "datapath/actions"],
    "datapath/kernel_path": ["datapath/base", "datapath/packet", "datapath/flow"],
    "datapath/vport": ["datapath/base", "datapath/packet", "datapath/flow", "datapath/tunnel", "datapath/actions",
                       "datapath/kernel_path",
                       "datapath/vport/afxdp", "datapath/vport/dpdk"],
    "datapath/vport/afxdp": ["datapath/base", "datapath/packet", "datapath/vport"],
    "datapath/vport/dpdk": ["datapath/base", "datapath/packet", "datapath/flow", "datapath/vport"],
    "datapath/core": ["datapath/base", "datapath/packet", "datapath/flow", "datapath/tunnel", "datapath/actions",
                      "datapath/flow_table", "datapath/kernel_path", "datapath/vport"],
    "vswitchd/rules": ["datapath/"],
    "vswitchd/openflow": ["datapath/", "vswitchd/rules"],
    "vswitchd/translate": ["datapath/", "vswitchd/rules", "vswitchd/openflow"],
    "vswitchd/store": ["datapath/base"],
    "vswitchd/control": ["datapath/", "vswitchd/rules", "vswitchd/openflow", "vswitchd/translate", "vswitchd/store"],
    "vswitchd/rpc": ["datapath/", "vswitchd/", "vswitch/v1/"],
    "vswitchd": ["datapath/base", "vswitchd/control", "vswitchd/rpc"],
    "cli": ["vswitch/v1/"],
}
# what a library's headers look like -> folders that may include them
RESTRICTED = {
    re.compile(r"^(openvswitch/|openflow/)"): ["vswitchd/openflow"],
    re.compile(r"^(grpc|grpcpp|google/protobuf)/|\.pb\.h$"): ["vswitchd/rpc", "cli"],
    re.compile(r"^sqlite3\.h$"): ["vswitchd/store"],
    re.compile(r"^netlink/"): ["datapath/vport"],
    re.compile(r"^rte_"): ["datapath/vport/dpdk"],
    re.compile(r"^xdp/"): ["datapath/vport/afxdp"],
    re.compile(r"^bpf/"): ["datapath/vport/afxdp", "datapath/kernel_path"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]')


def folder_of(path: pathlib.Path) -> str:
    return path.parent.relative_to(ROOT).as_posix()


def check(path: pathlib.Path) -> list[str]:
    folder = folder_of(path)
    problems = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        header = match.group(1)
        where = f"{path.relative_to(ROOT)}:{number}"
        for pattern, folders in RESTRICTED.items():
            if pattern.search(header) and folder not in folders:
                problems.append(f"{where}: {header} may be included only from {', '.join(folders)}")
        if not header.startswith(("datapath/", "vswitchd/", "cli/", "tests/", "vswitch/v1/")):
            continue
        own = header.rpartition("/")[0] == folder
        if not own and not any(header.startswith(a if a.endswith("/") else a + "/") for a in ALLOWED[folder]):
            problems.append(f"{where}: {folder} may not include {header}")
    return problems


def main() -> int:
    problems = []
    for top in ("datapath", "vswitchd", "cli"):
        for path in sorted((ROOT / top).rglob("*")):
            if path.suffix not in (".h", ".cc", ".inc"):
                continue
            if folder_of(path) not in ALLOWED:
                problems.append(f"{path.relative_to(ROOT)}: folder is not in the include rule; add it to {pathlib.Path(__file__).name}")
                continue
            problems += check(path)
    print("\n".join(problems) if problems else "includes follow the one-way rule")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
