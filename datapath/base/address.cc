#include "datapath/base/address.h"

#include <arpa/inet.h>
#include <fmt/format.h>

namespace vswitch {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::optional<MacAddress> MacAddress::parse(std::string_view text) {
  if (text.size() != 17) return std::nullopt;
  MacAddress mac;
  for (size_t i = 0; i < 6; ++i) {
    const int high = hex_digit(text[i * 3]);
    const int low = hex_digit(text[i * 3 + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    if (i < 5 && text[i * 3 + 2] != ':') return std::nullopt;
    mac.bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return mac;
}

std::string MacAddress::to_string() const {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", bytes[0], bytes[1], bytes[2], bytes[3], bytes[4],
                     bytes[5]);
}

std::optional<Ipv6Address> Ipv6Address::parse(std::string_view text) {
  Ipv6Address address;
  if (inet_pton(AF_INET6, std::string(text).c_str(), address.bytes.data()) != 1) return std::nullopt;
  return address;
}

std::string Ipv6Address::to_string() const {
  char text[INET6_ADDRSTRLEN];
  return inet_ntop(AF_INET6, bytes.data(), text, sizeof text);
}

std::optional<be32> parse_ipv4(std::string_view text) {
  uint32_t raw = 0;
  if (inet_pton(AF_INET, std::string(text).c_str(), &raw) != 1) return std::nullopt;
  return be32::from_raw(raw);
}

std::string ipv4_to_string(be32 address) {
  const uint32_t v = address.host();
  return fmt::format("{}.{}.{}.{}", v >> 24, v >> 16 & 0xff, v >> 8 & 0xff, v & 0xff);
}

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  if (auto v4 = parse_ipv4(text)) return from_v4(*v4);
  if (auto v6 = Ipv6Address::parse(text)) return from_v6(*v6);
  return std::nullopt;
}

std::string IpAddress::to_string() const {
  switch (family) {
    case Family::none:
      return "";
    case Family::v4:
      return ipv4_to_string(v4);
    case Family::v6:
      return v6.to_string();
  }
  return "";
}

}  // namespace vswitch
