// What ofctl prints, in the words of ovs-ofctl. Functions of their arguments only.
#pragma once

#include <string>

#include "vswitch/v1/config_service.pb.h"
#include "vswitch/v1/packet_service.pb.h"
#include "vswitch/v1/rule_service.pb.h"

namespace vswitch::cli {

namespace v1 = ::vswitch::v1;

std::string of_port_text(const v1::Port& port, bool names);  // "LOCAL", "3", "vx0"
std::string ports_text(const v1::ListPortsResponse& ports, bool names);
std::string port_descriptions_text(const v1::ListPortsResponse& ports);
std::string show_text(const v1::Bridge& bridge, const v1::ListPortsResponse& ports);
std::string tables_text(const v1::ListTablesResponse& tables);
std::string macs_text(const v1::ListMacsResponse& macs);
std::string packet_in_text(const v1::PacketIn& packet);

// "LOCAL" and numbers; 0 if it is neither.
uint32_t parse_of_port(const std::string& text);
// Hexadecimal digits, blanks allowed between; false if they are no bytes.
bool parse_hex(const std::string& text, std::string& out);

}  // namespace vswitch::cli
