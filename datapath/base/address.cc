#include "datapath/base/address.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace vswitch {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// inet_pton() reads up to the first NUL: a text that has one of its own would be taken for what stands before it.
bool read_address(int family, std::string_view text, void* address) {
  std::array<char, INET6_ADDRSTRLEN> terminated{};
  if (text.size() >= terminated.size() || text.find('\0') != text.npos) return false;
  std::copy(text.begin(), text.end(), terminated.begin());
  return inet_pton(family, terminated.data(), address) == 1;
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
  if (!read_address(AF_INET6, text, address.bytes.data())) return std::nullopt;
  return address;
}

std::string Ipv6Address::to_string() const {
  char text[INET6_ADDRSTRLEN];
  return inet_ntop(AF_INET6, bytes.data(), text, sizeof text);
}

std::optional<be32> parse_ipv4(std::string_view text) {
  uint32_t raw = 0;
  if (!read_address(AF_INET, text, &raw)) return std::nullopt;
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
