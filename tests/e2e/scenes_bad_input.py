"""Bad input: one line that names what is wrong, the right exit status, and nothing changed.

Each case is a command line, the exit status (1: the switch refused; 2: wrong use) and words that the line on standard error must hold.
"""
import difflib
import json
import os
import re
import shlex
import socket
import time

from lab import BIN, Failure, Lab, eventually, run

NAME64 = "n" * 64
FRAME = "ffffffffffff0a0000000001" + "0806" + "00" * 46

BRIDGES = [
    ("vsctl add-br br0", 1, ["br0", "already exists"]),
    ("vsctl add-br p1", 1, ["p1", "br0", "port"]),
    ("vsctl add-br lo", 1, ["lo", "exists"]),
    ("vsctl add-br free", 1, ["free", "veth"]),
    ("vsctl add-br thisnameistoolong", 1, ["thisnameistoolong", "15"]),
    ("vsctl add-br ''", 1, ["bridge"]),
    ("vsctl add-br 'br 5'", 1, ["br 5", "position 3"]),
    ("vsctl add-br br/5", 1, ["br/5", "name"]),
    ("vsctl add-br br5 fail_mode=maybe", 1, ["fail_mode=maybe", "standalone", "secure"]),
    ("vsctl add-br br5 datapath_type=kernel", 1, ["datapath_type=kernel"]),
    ("vsctl add-br br5 colour=red", 1, ["colour", "fail_mode"]),
    ("vsctl add-br", 2, ["BRIDGE is missing", "add-br BRIDGE"]),
    ("vsctl del-br nobr", 1, ["nobr"]),
    ("vsctl set-fail-mode br0 odd", 1, ["odd", "secure"]),
    ("vsctl set bridge br0 other_config:mac-aging-time=1", 1, ["br0", "15", "3600"]),
    ("vsctl set bridge br0 other_config:mac-aging-tim=60", 1, ["mac-aging-tim", "mac-aging-time"]),
    ("vsctl set bridge br0 other_config:hwaddr=zz", 1, ["zz", "Ethernet address"]),
    ("vsctl set bridge br0 flood_vlans=1,x", 1, ["flood_vlans", "x"]),
    ("vsctl set bridge nobr fail_mode=secure", 1, ["nobr"]),
    ("vsctl br-exists nobr", 2, None),
    ("vsctl list-ports nobr", 1, ["nobr"]),
    ("vsctl list-ifaces nobr", 1, ["nobr"]),
    ("vsctl set bridge br0 other_config=mac-aging-tim=60", 1, ["mac-aging-tim", "mac-aging-time"]),
    ("vsctl set bridge br0 fail_mode=", 1, ["fail_mode=", "secure"]),
    ("vsctl create bridge name=br5", 1, ["add-br"]),
    ("vsctl destroy bridge br0", 1, ["del-br"]),
    ("vsctl clear bridge br0 rules", 1, ["rules", "fail_mode"]),
    ("vsctl remove bridge br0 options key", 1, ["Bridge", "options"]),
    ("vsctl remove open_vswitch . external_ids key", 1, ["Open_vSwitch", "external_ids"]),
    ("vsctl set-fail-mode br0", 2, ["MODE is missing"]),
    ("vsctl br-set-external-id br0", 2, ["KEY is missing"]),
]

PORTS = [
    ("vsctl add-port br1 p1", 1, ["p1", "br0"]),
    ("vsctl --may-exist add-port br1 p1", 1, ["p1", "br0", "br1"]),
    ("vsctl add-port br0 p1", 1, ["p1", "br0", "already"]),
    ("vsctl add-port br0 br1", 1, ["br1"]),
    ("vsctl add-port nobr free", 1, ["nobr"]),
    ("vsctl add-port br0 nodevice", 1, ["nodevice", "does not exist"]),
    ("vsctl add-port br0 again options:device=p2", 1, ["p2", "br1"]),
    ("vsctl add-port br0 twice type=vxlan remote_ip=10.9.1.1 remote_ip=10.9.2.2 key=5", 1, ["remote_ip", "twice"]),
    ("vsctl set port p1 tag=5 tag=6", 1, ["tag", "twice"]),
    ("vsctl add-port br0 free ofport_request=1", 1, ["free", "1", "p1"]),
    ("vsctl add-port br0 free ofport_request=65534", 1, ["65534", "65279"]),
    ("vsctl add-port br0 free ofport_request=x", 1, ["ofport_request=x"]),
    ("vsctl add-port br0 free tag=5000", 1, ["tag=5000", "4095"]),
    ("vsctl add-port br0 free tag=-1", 1, ["tag=-1"]),
    ("vsctl add-port br0 free trunks=1,5000", 1, ["5000", "4095"]),
    ("vsctl add-port br0 free vlan_mode=odd", 1, ["odd", "access"]),
    ("vsctl add-port br0 free mtu_request=70000", 1, ["70000", "65535"]),
    ("vsctl add-port br0 free mtu_request=20", 1, ["free", "20", "68"]),
    ("vsctl add-port br0 free mac=01:00:00:00:00:01", 1, ["01:00:00:00:00:01", "multicast"]),
    ("vsctl add-port br0 free mac=hello", 1, ["hello", "Ethernet address"]),
    ("vsctl add-port br0 free options:remote_ip=192.0.2.9", 1, ["free", "remote_ip", "netdev"]),
    ("vsctl add-port br0 x type=vxlann", 1, ["vxlann", 'did you mean "vxlan"']),
    ("vsctl add-port br0 x type=geneve remote_ip=192.0.2.9", 1, ["geneve", "vxlan"]),
    ("vsctl add-port br0 x type=patch", 1, ["x", "peer"]),
    ("vsctl add-port br0 x type=patch peer=x", 1, ["x", "peer"]),
    ("vsctl add-port br0 x type=dummy pcpa=/tmp/x", 1, ["pcpa", 'did you mean "pcap"']),
    ("vsctl add-port br0 x type=dummy pcap=/nonexistent/x.pcap", 1, ["/nonexistent/x.pcap", "No such file"]),
    ("vsctl add-port br0 x type=pcap rx_pcap=/nonexistent.pcap", 1, ["/nonexistent.pcap", "No such file"]),
    ("vsctl add-port br0 x type=pcap rx_pcap=/etc/passwd", 1, ["/etc/passwd"]),
    ("vsctl add-port br0 x type=internal mtu_request=5", 1, ["x", "5", "68"]),
    (f"vsctl add-port br0 {NAME64} type=dummy", 1, [NAME64, "63"]),
    ("vsctl add-port br0 'a b' type=dummy", 1, ["a b", "position 2"]),
    ("vsctl add-port br0 a/b type=dummy", 1, ["a/b", "name"]),
    ("vsctl add-port br0 '' type=dummy", 1, ["port"]),
    ("vsctl add-port br0", 2, ["PORT is missing", "add-port BRIDGE PORT"]),
    ("vsctl del-port br1 p1", 1, ["br1", "p1", "br0"]),
    ("vsctl del-port br0 noport", 1, ["noport"]),
    ("vsctl del-port br0 br0", 1, ["br0", "delete the bridge"]),
    ("vsctl del-port nobr p1", 1, ["nobr"]),
    ("vsctl del-port", 2, ["del-port"]),
    ("vsctl port-to-br noport", 1, ["noport"]),
    ("vsctl set port p1 tag=5000", 1, ["tag=5000", "4095"]),
    ("vsctl set port p1 tagg=5", 1, ["tagg", 'did you mean "tag"']),
    ("vsctl set port p1 tag", 1, ["tag", "COLUMN=VALUE"]),
    ("vsctl set port p1 other_config:priority-tags=banana", 1, ["priority-tags=banana"]),
    ("vsctl set prt p1 tag=5", 1, ["prt", "port"]),
    ("vsctl set port noport tag=5", 1, ["noport"]),
    ("vsctl set interface p1 ofport_request=7", 1, ["p1", "7", "d1"]),
    ("vsctl set interface p1 type=nonesuch", 1, ["p1", "nonesuch", "vxlan"]),
    ("vsctl set interface vx1 type=dummy", 1, ["vx1", "dummy"]),
    ("vsctl set open_vswitch . other_config:forwarding-threads=100000", 1, ["forwarding-threads=100000", "1024"]),
    ("vsctl set open_vswitch . other_config:max-idle=1", 1, ["1", "100"]),
    ("vsctl set open_vswitch . other_config:pmd-cpu-mask=3", 1, ["pmd-cpu-mask", "forwarding-threads"]),
    ("vsctl list prt", 1, ["prt"]),
    ("vsctl list port noport", 1, ["noport"]),
    ("vsctl get port p1 tagg", 1, ["tagg", 'did you mean "tag"']),
    ("vsctl get port p1", 2, ["get TABLE RECORD COLUMN"]),
    ("vsctl add port p1 trunks 5", 1, ["trunks"]),
    ("vsctl add-port br0 lo", 1, ["lo", "loopback"]),
    ("vsctl add-port br0 x options:device=lo", 1, ["lo", "loopback"]),
    ("vsctl add-port br0 d1 options:peer=pb", 1, ["d1", "br0", "already"]),
    ("vsctl add-port br0 x type=vxlan remote_ip=10.9.1.1 options:remote_ip=10.9.2.2", 1, ["remote_ip", "twice"]),
    ("vsctl set interface vx1 options:=5", 1, ["options:", "key"]),
    ("vsctl set port p1 tag=", 1, ["tag=", "number"]),
    ("vsctl set port p1 tag!=5", 1, ["tag!=5", "COLUMN=VALUE"]),
    ("vsctl remove interface vx1 options key=5", 1, ["key=5", "key alone"]),
    ("vsctl clear port p1 tag:x", 1, ["tag:x", "column"]),
    ("vsctl get port p1 tag:x", 1, ["tag", "no map"]),
    ("vsctl get port p1 tag=5", 1, ["tag=5", "COLUMN"]),
    ("vsctl get port p1 other_config:x", 1, ["no key x", "p1"]),
    ("vsctl find port tag", 1, ["tag", "condition"]),
    ("vsctl find port tagg=5", 1, ["tagg", 'did you mean "tag"']),
    ("vsctl find port tag!5", 1, ["tag!5", "condition"]),
    ("vsctl find interface 'mtu>many'", 1, ["mtu>many", "many"]),
    ("vsctl --columns=nosuch list port", 1, ["nosuch", "Port"]),
    ("vsctl wait-until port p1 tagg=5", 1, ["tagg"]),
    ("vsctl --timeout=0.5 wait-until port p1 tag=5", 1, ["p1", '"tag=5" does not hold', "tag is []"]),
    ("vsctl --timeout=0.5 wait port noport tag=5", 1, ["noport", "there is no Port"]),
    ("vsctl list", 2, ["TABLE is missing"]),
    ("vsctl set port p1", 2, ["COLUMN[:KEY]=VALUE is missing"]),
]

TUNNELS = [
    ("vsctl add-port br0 x type=vxlan", 1, ["x", "remote_ip"]),
    ("vsctl add-port br0 x type=vxlan remote_ip=192.0.2.9", 1, ["x", "4789", "{pid}", "python"]),
    ("vsctl add-port br0 x type=vxlan remote_ip=192.0.2.2 key=5 dst_port=8472", 1, ["x", "vx1", "192.0.2.2", "8472"]),
    ("vsctl add-port br0 x type=vxlan remote_ip=192.0.2.9 key=16777216 dst_port=8472", 1, ["16777216", "16777215"]),
    ("vsctl add-port br0 x type=vxlan remote_ip=192.0.2.9 key=-1 dst_port=8472", 1, ["key=-1"]),
    ("vsctl add-port br0 x type=vxlan remote_ip=300.0.2.9 dst_port=8472", 1, ["300.0.2.9"]),
    ("vsctl add-port br0 x type=vxlan remote_ip=192.0.2.9 local_ip=fd00::1 dst_port=8472", 1, ["fd00::1", "family"]),
    ("vsctl add-port br0 x type=vxlan remote_ip=192.0.2.9 dst_port=70000", 1, ["dst_port=70000", "65535"]),
    ("vsctl add-port br0 x type=vxlan remote_ip=192.0.2.9 dst_port=8472 remot_ip=1.1.1.1", 1, ['did you mean "remote_ip"']),
    ("vsctl add-port br0 x type=vxlan remote_ip=192.0.2.9 dst_port=8472 csum=perhaps", 1, ["csum=perhaps", "true"]),
    ("vsctl add-port br0 x type=vxlan remote_ip=192.0.2.9 dst_port=8472 ttl=300", 1, ["ttl=300", "255"]),
    ("vsctl add-port br0 x type=vxlan remote_ip=192.0.2.9 dst_port=8472 tos=300", 1, ["tos=300"]),
    ("vsctl set interface vx1 options:key=99999999", 1, ["vx1", "99999999", "16777215"]),
    ("vsctl set interface vx1 options:dst_port=4789", 1, ["vx1", "4789", "{pid}"]),
]

RULES = [
    ("ofctl add-flow nobr actions=drop", 1, ["nobr"]),
    ("ofctl add-flow br0 ''", 1, ["must specify an action"]),
    ("ofctl add-flow br0 ip", 1, ["must specify an action"]),
    ("ofctl add-flow br0 ip,actions=fly", 1, ["unknown action fly"]),
    ("ofctl add-flow br0 ipx,actions=drop", 1, ["ipx"]),
    ("ofctl add-flow br0 nw_src=10.0.0.0,actions=drop", 1, ["nw_src", "ip"]),
    ("ofctl add-flow br0 ip,nw_src=10.0.0.300,actions=drop", 1, ["10.0.0.300"]),
    ("ofctl add-flow br0 priority=70000,actions=drop", 1, ["priority", "70000"]),
    ("ofctl add-flow br0 table=300,actions=drop", 1, ["300"]),
    ("ofctl add-flow br0 table=255,actions=drop", 1, ["table=255"]),
    ("ofctl add-flow br0 dl_vlan=5000,actions=drop", 1, ["dl_vlan=5000"]),
    ("ofctl add-flow br0 ct_state=+trk,actions=drop", 1, ["ct_", "not supported"]),
    ("ofctl add-flow br0 conj_id=1,actions=drop", 1, ["conj_id", "not supported"]),
    ("ofctl add-flow br0 actions=ct(commit)", 1, ["action ct", "not supported"]),
    ("ofctl monitor br0 watch:", 2, ["monitor"]),
    ("ofctl add-flow br0 in_port=nosuch,actions=drop", 1, ["nosuch", "in_port"]),
    ("ofctl add-flow br0 actions=output:nosuch", 1, ["nosuch", "unknown port"]),
    ("ofctl add-flow br0 actions=group:1", 1, ["group", "not supported"]),
    ("ofctl add-flow br0 'ip,actions=ct(commit)'", 1, ["ct", "not supported"]),
    ("ofctl add-flow br0 'actions=learn(table=1)'", 1, ["learn", "not supported"]),
    ("ofctl add-flow br0 'actions=conjunction(1,1/2)'", 1, ["conjunction", "not supported"]),
    ("ofctl add-flow br0 actions=meter:1", 1, ["meter", "not supported"]),
    ("ofctl add-flow br0 actions=push_mpls:0x8847", 1, ["push_mpls", "not supported"]),
    ("ofctl add-flow br0 'actions=set_field:5->tp_dst'", 1, ["set_field", "tcp_dst"]),
    ("ofctl add-flow br0 'actions=set_field:5->nosuch'", 1, ["nosuch"]),
    ("ofctl add-flow br0 'actions=move:NXM_OF_ETH_SRC[]->NXM_OF_IP_DST[]'", 1, ["48 bits", "32 bits"]),
    ("ofctl add-flow br0 'actions=resubmit(,300)'", 1, ["300", "table"]),
    ("ofctl add-flow br0 table=2,actions=goto_table:1", 1, ["goto_table"]),
    ("ofctl add-flow br0 dl_src=zz,actions=drop", 1, ["zz", "Ethernet address"]),
    ("ofctl add-flow br0 tcp,tp_dst=70000,actions=drop", 1, ["70000", "tcp_dst"]),
    ("ofctl add-flow br0 ip,actions=mod_vlan_vid:5000", 1, ["5000"]),
    ("ofctl add-flow br0 idle_timeout=99999999,actions=drop", 1, ["idle_timeout", "99999999"]),
    ("ofctl add-flow br0 'actions=drop,output:1'", 1, ["drop"]),
    ("ofctl add-flow br0", 2, ["add-flow BRIDGE FLOW"]),
    ("ofctl add-flow br0 actions=drop extra", 2, ["add-flow BRIDGE FLOW"]),
    ("ofctl mod-flows br0 ip", 1, ["must specify an action"]),
    ("ofctl mod-flows br0 ip,actions=output:nosuch", 1, ["nosuch"]),
    ("ofctl del-flows br0 nosuch=1", 1, ["nosuch"]),
    ("ofctl del-flows nobr", 1, ["nobr"]),
    ("ofctl --strict del-flows br0 priority=x", 1, ["priority"]),
    ("ofctl dump-flows nobr", 1, ["nobr"]),
    ("ofctl dump-flows br0 bad=1", 1, ["bad"]),
    ("ofctl add-flows br0 /nonexistent", 1, ["/nonexistent", "No such file"]),
    ("ofctl replace-flows br0 /nonexistent", 1, ["/nonexistent", "No such file"]),
    ("ofctl diff-flows br0 nobr", 1, ["nobr"]),
    ("ofctl add-group br0 group_id=1,type=all,bucket=output:1", 1, ["groups", "not supported"]),
    ("ofctl add-meter br0 meter=1", 1, ["meters", "not supported"]),
    ("ofctl trace br0", 2, ["trace BRIDGE FLOW"]),
    ("ofctl trace br0 nosuch=1", 1, ["nosuch"]),
    ("ofctl trace br0 in_port=1 zz", 2, ["zz", "hexadecimal"]),
    ("ofctl packet-out br0 in_port=1,actions=output:2", 1, ["packet"]),
    (f"ofctl packet-out br0 in_port=1,packet={FRAME},actions=fly", 1, ["unknown action fly"]),
    (f"ofctl packet-out br0 in_port=nosuch,packet={FRAME},actions=output:1", 1, ["nosuch"]),
    ("ofctl mod-port br0 p1 sideways", 2, ["sideways", "no-flood"]),
    ("ofctl mod-port br0 noport up", 1, ["noport", "br0"]),
    ("ofctl dump-ports br0 noport", 1, ["noport", "br0"]),
    ("ofctl dump-ports-desc br0 99", 1, ["99", "br0"]),
    ("ofctl fdb-add br0 p1 5000 00:00:00:00:00:01", 1, ["5000", "4095"]),
    ("ofctl fdb-add br0 p1 5 01:00:00:00:00:01", 1, ["01:00:00:00:00:01", "multicast"]),
    ("ofctl fdb-add br0 noport 5 00:00:00:00:00:01", 1, ["noport"]),
    ("ofctl fdb-del br0 5 00:00:00:00:00:01", 1, ["00:00:00:00:00:01", "VLAN 5"]),
    ("ofctl fdb-del br0 LOCAL 00:00:00:00:00:01", 1, ["LOCAL", "4095"]),
    ("ofctl add-flow br0 metadata=-1,actions=drop", 1, ["metadata=-1", "negative"]),
    ("ofctl add-flow br0 priority=-1,actions=drop", 1, ["priority=-1", "negative"]),
    ("ofctl add-flow br0 'actions=load:-1->reg0'", 1, ["load:-1->reg0", "negative"]),
    ("ofctl add-flow br0 actions=normal:3", 1, ["normal", "no argument", "3"]),
    ("ofctl add-flow br0 actions=p1:3", 1, ["p1", "no argument"]),
    ("ofctl add-flow br0 actions=output_trunc:3", 1, ["output_trunc", "max_len"]),
    ("ofctl add-flow br0 skb_priority=1,actions=drop", 1, ["skb_priority", "cannot be matched"]),
    ("ofctl add-flow br0 icmp6,nd_target=fe80::1,actions=drop", 1, ["nd_target", "icmp_type=135"]),
    ("ofctl add-flow br0 actions=strip_vlan,push_vlan:0x8100,mod_vlan_vid:5", 1, ["strip_vlan", "VLAN tag"]),
    ("ofctl add-flow br0 table=2,actions=output:1,goto_table:1", 1, ["goto_table:1", "table 2", "later table"]),
    ("ofctl add-flow br0 in_port=1,in_port=7,actions=drop", 1, ["in_port", "twice"]),
    ("ofctl add-flow br0 priority=1,priority=2,actions=drop", 1, ["priority", "twice"]),
    ("ofctl add-flow br0 tcp,udp,actions=drop", 1, ["tcp and udp"]),
    ("ofctl add-flow br0 tcp,udp_dst=53,actions=drop", 1, ["udp_dst", "udp or udp6"]),
    ("ofctl add-flow br0 tcp=6,actions=drop", 1, ["tcp", "no value"]),
    ("ofctl del-flows br0 metadata=-1", 1, ["metadata=-1", "negative"]),
    ("ofctl dump-flows br0 tcp,udp", 1, ["tcp and udp"]),
    ("ofctl trace br0 in_port=99", 1, ["in_port=99", "br0"]),
    (f"ofctl packet-out br0 in_port=99,packet={FRAME},actions=output:1", 1, ["in_port=99", "br0"]),
    ("ofctl add-flows br0 /", 1, ["/: Is a directory"]),
    ("ofctl replace-flows br0 /", 1, ["/: Is a directory"]),
    ("ofctl -O OpenFlow99 show br0", 2, ["OpenFlow99", "OpenFlow13"]),
    ("ofctl -F nxn show br0", 2, ["nxn", "NXM"]),
    ("ofctl show nobr", 1, ["nobr"]),
    ("ofctl --names --no-names dump-flows br0", 2, ["--names", "--no-names"]),
]

DATAPATH_AND_OPTIONS = [
    ("dpctl receive d1", 2, ["HEX is missing", "receive PORT HEX"]),
    ("dpctl show x", 2, ["superfluous", "x"]),
    ("dpctl dump-flows x", 2, ["superfluous", "x"]),
    ("dpctl del-flows x", 2, ["superfluous", "x"]),
    ("vsctl --timeout=1 --timeout=2 list-br", 2, ["--timeout", "twice"]),
    ("vsctl --timeout= list-br", 2, ["--timeout", "empty"]),
    ("dpctl receive d1 zz", 2, ["zz", "hexadecimal"]),
    (f"dpctl receive p1 {FRAME}", 1, ["p1", "netdev", "dummy"]),
    (f"dpctl receive noport {FRAME}", 1, ["noport"]),
    ("dpctl dump-conntrack", 1, ["not supported"]),
    ("dpctl drops extra", 2, ["drops"]),
    ("vsctl", 2, ["help"]),
    ("vsctl frobnicate", 2, ["frobnicate", "help"]),
    ("vsctl ad-port br0 x", 2, ['did you mean "add-port"']),
    ("vsctl list-br extra", 2, ["list-br"]),
    ("vsctl --format xml list-br", 2, ["xml", "json"]),
    ("ofctl --format xml dump-flows br0", 2, ["xml", "json"]),
    ("dpctl --format xml show", 2, ["xml", "json"]),
    ("vsctl --nosuch list-br", 2, ["--nosuch"]),
    ("vsctl --timeout=soon list-br", 2, ["--timeout=soon"]),
    # One transaction: what comes before the mistake is not done either.
    ("vsctl add-br br5 -- add-port br5 nodevice", 1, ["nodevice"]),
    ("vsctl add-br br5 -- add-port br5 x type=dummy -- add-port br5 x type=dummy", 1, ["x"]),
    ("vsctl del-port p1 -- add-port br0 x type=vxlan remote_ip=1.2.3 dst_port=8472", 1, ["1.2.3"]),
    ("vsctl add-br br5 -- frobnicate", 2, ["frobnicate"]),
    ("vsctl add-br br5 --", 2, ["help"]),
]

FINE = [
    "vsctl --may-exist add-br br0",
    "vsctl --may-exist add-port br0 p1",
    "vsctl --if-exists del-br nobr",
    "vsctl --if-exists del-port noport",
    "vsctl --if-exists del-port br0 noport",
    "vsctl --if-exists list port noport",
    "vsctl --if-exists get port noport tag",
    "vsctl br-exists br0",
    "vsctl --dry-run add-br br5 -- add-port br5 free",
    "vsctl --dry-run del-br br0",
    "vsctl comment nothing",
    "ofctl del-flows br0 tcp,tp_dst=1",
    "ofctl -O OpenFlow10,OpenFlow13 dump-flows br0",
    "ofctl -F NXM+table_id del-flows br0 tcp,tp_dst=1",
    "ofctl trace br0 tcp,tp_dst=80",
    "ofctl trace br0 in_port=LOCAL,arp",
    "vsctl remove interface vx1 options nosuch",
    "vsctl wait-until interface d1 ofport=7",
]


def _configure(lab):
    """Two bridges; p1 on br0, p2 on br1, a device that is free; UDP port 4789 in the hands of somebody else."""
    host, other = lab.host("sw"), lab.host("o")
    switch = lab.switch(host)
    for i, name in enumerate(("p1", "p2", "free")):
        lab.wire(other, f"eth{i}", host, name)
    switch.vsctl("add-br", "br0", "--", "add-br", "br1", "--", "add-port", "br0", "p1", "ofport_request=1",
                 "--", "add-port", "br1", "p2", "--", "add-port", "br0", "d1", "type=dummy", "ofport_request=7",
                 "--", "add-port", "br0", "vx1", "type=vxlan", "remote_ip=192.0.2.2", "key=5", "dst_port=8472")
    switch.ofctl("add-flow", "br0", "priority=7,tcp,tp_dst=80,actions=output:p1")
    owner = host.start("python3", "-c", "import signal, socket\n"
                       "a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); a.bind(('', 4789))\n"
                       "signal.pause()")
    eventually(lambda: ":4789" in host.run("ss", "-lun").stdout, "udp/4789 is taken")
    return switch, owner


def _everything(switch):
    """Configuration and rules as text, without what moves by itself."""
    rules = "".join(switch.ofctl("--no-stats", "dump-flows", bridge) for bridge in ("br0", "br1"))
    records = switch.vsctl("show", "--", "list", "bridge", "--", "list", "port", "--", "list", "interface", "--", "list", "open_vswitch")
    steady = [line for line in records.splitlines() if not re.match(r"statistics|error|link_|admin_state|status", line)]
    return "\n".join(steady) + "\n" + rules


def _difference(before, after):
    return "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", n=0, lineterm=""))


def _one_line(command, done, status, words, names):
    """What a refusal looks like; returns what is wrong with it, or ''."""
    lines = done.stderr.splitlines()
    if done.returncode != status:
        return f"exit status {done.returncode}, not {status}"
    if words is None:
        return "" if not lines else "nothing is to be said"
    if len(lines) != 1 or not lines[0].startswith(command.split()[0] + ": "):
        return "exactly one line that begins with the program's name is wanted"
    missing = [word for word in words if word.format(**names) not in lines[0]]
    return f"the line does not hold {missing}" if missing else ""


def _check_table(table):
    with Lab() as lab:
        switch, owner = _configure(lab)
        names = {"pid": owner.pid}
        before = _everything(switch)
        wrong = []
        for command, status, words in table:
            start = time.monotonic()
            done = switch.tool(*shlex.split(command), check=False)
            problem = _one_line(command, done, status, words, names)
            if time.monotonic() - start > 5:
                problem += "; it took more than 5 s"
            after = _everything(switch)
            if after != before:
                problem += "; it changed the switch:\n" + _difference(before, after)
                before = after
            if problem:
                wrong.append(f"{command}\n    {problem}: exit status {done.returncode}\n    {(done.stdout + done.stderr).rstrip()}")
        if wrong:
            raise Failure("\n".join(wrong))


def scene_bridges():
    _check_table(BRIDGES)


def scene_ports():
    _check_table(PORTS)


def scene_tunnels():
    _check_table(TUNNELS)


def scene_rules():
    _check_table(RULES)


def scene_datapath_and_options():
    _check_table(DATAPATH_AND_OPTIONS)


def scene_what_is_no_mistake():
    with Lab() as lab:
        switch, _ = _configure(lab)
        before = _everything(switch)
        for command in FINE:
            done = switch.tool(*shlex.split(command), check=False)
            if done.returncode != 0 or done.stderr:
                raise Failure(f"{command}: exit status {done.returncode}\n{done.stderr}")
        after = _everything(switch)
        if after != before:
            raise Failure(f"commands that are to change nothing changed the switch:\n{_difference(before, after)}")


def scene_json_is_one_message():
    """What prints something prints one JSON object with --format json, and that is a message of the API."""
    with Lab() as lab:
        switch, _ = _configure(lab)
        for command, keys in (("vsctl show", ["version", "settings", "bridges", "ports"]), ("vsctl list-br", ["bridges"]),
                              ("vsctl list-ports br0", ["ports"]), ("vsctl list-ifaces br0", ["ports"]),
                              ("vsctl list-all-ports", ["ports"]), ("vsctl get-fail-mode br0", ["failMode"]),
                              ("vsctl br-get-external-id br0", ["externalIds"]), ("vsctl port-to-br p1", ["bridge"]),
                              ("vsctl iface-to-br p1", ["bridge"]), ("vsctl list bridge", ["bridges"]),
                              ("vsctl list interface p1", ["ports"]), ("vsctl list open_vswitch", ["maxIdleMs"]),
                              ("vsctl find port tag=5", ["ports"]), ("vsctl get interface p1 ofport", ["ofport"]),
                              ("ofctl show br0", ["bridges", "ports"]), ("ofctl dump-flows br0", ["rules"]),
                              ("ofctl dump-aggregate br0", ["rules"]), ("ofctl dump-tables br0", ["tables"]),
                              ("ofctl dump-ports br0", ["ports"]), ("ofctl dump-ports-desc br0", ["ports"]),
                              ("ofctl diff-flows br0 br0", ["differences"]), ("ofctl fdb-show br0", ["entries"]),
                              ("ofctl trace br0 in_port=1", ["sections"]), ("dpctl show", ["ports"]),
                              ("dpctl stats", ["hits"]), ("dpctl dump-flows", ["flows"]), ("dpctl masks", ["masks"]),
                              ("dpctl drops", ["drops"]), ("dpctl balance", ["balances"])):
            done = switch.tool(*command.split(), "--format", "json")
            try:
                message = json.loads(done.stdout)
            except json.JSONDecodeError as error:
                raise Failure(f"{command}: no JSON ({error}):\n{done.stdout[:500]}") from error
            missing = [key for key in keys if key not in message]
            if missing:
                raise Failure(f"{command}: no {missing} in {list(message)}")


def scene_half_a_million_rules_and_one_mistake():
    with Lab() as lab:
        switch, _ = _configure(lab)
        before = _everything(switch)
        path = lab.directory / "rules.txt"
        with open(path, "w") as file:
            for i in range(1, 500_000):
                file.write(f"priority={i % 1000},ip,nw_dst=10.{i >> 16}.{i >> 8 & 255}.{i & 255},actions=output:1\n")
            file.write("priority=1,ip,nw_dst=10.0.0.1,actions=outptu:1\n")
        for verb in ("add-flows", "replace-flows"):
            start = time.monotonic()
            done = switch.tool("ofctl", verb, "br0", path, check=False)
            took = time.monotonic() - start
            problem = _one_line("ofctl", done, 1, [f"{path}:500000", "outptu"], {})
            if problem:
                raise Failure(f"{verb}: {problem}:\n{done.stderr[:2000]}")
            if took > 10:
                raise Failure(f"{verb}: the mistake in line 500,000 was found after {took:.1f} s")
        after = _everything(switch)
        if after != before:
            raise Failure(f"a file with a mistake changed the switch:\n{_difference(before, after)}")


def scene_no_daemon():
    """No hang: without a daemon, with one that does not answer, and with a wrong address, the answer comes soon."""
    with Lab() as lab:
        missing = lab.directory / "nothing.sock"
        silent = lab.directory / "silent.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(silent))
        listener.listen(8)
        for program, verb in (("vsctl", "show"), ("ofctl", "dump-flows br0"), ("dpctl", "show")):
            for server, options, words in ((f"unix:{missing}", [], [str(missing)]),
                                           (f"unix:{silent}", ["--timeout=1"], [str(silent), "1 s"])):
                start = time.monotonic()
                done = run(BIN / program, "--server", server, *options, *verb.split(), check=False)
                problem = _one_line(program, done, 1, words, {})
                if problem:
                    raise Failure(f"{program} --server {server}: {problem}: {done.stderr}")
                if time.monotonic() - start > 5:
                    raise Failure(f"{program} --server {server}: an answer after {time.monotonic() - start:.1f} s")
        done = run(BIN / "vsctl", "--server", "smoke:signals", "show", check=False)
        if done.returncode not in (1, 2) or len(done.stderr.splitlines()) != 1 or "smoke:signals" not in done.stderr:
            raise Failure(f"a wrong address: exit status {done.returncode}: {done.stderr}")
        listener.close()


def scene_daemon_options():
    """The daemon's own command line."""
    for arguments, status, word in ((["--no-such-option"], 2, "no-such-option"), (["--log-level", "loud"], 2, "loud"),
                                    (["--listen", "carrier-pigeon"], 1, "carrier-pigeon")):
        with Lab() as lab:
            directories = ["--run-dir", lab.directory / "run", "--state-dir", lab.directory / "state"]
            done = run(BIN / "vswitchd", *directories, *arguments, check=False, timeout=10)
            if done.returncode != status or word not in done.stderr:
                raise Failure(f"vswitchd {' '.join(arguments)}: exit status {done.returncode}, {status} is wanted:\n{done.stderr}")
            if os.path.exists(lab.directory / "run" / "vswitchd.sock"):
                raise Failure("a daemon that did not start left a socket")
