// Ethernet and IP addresses as values.
//
// MacAddress is 6 bytes and Ipv6Address 16 bytes, both in wire order with alignment 1, so they may overlay packet
// bytes. An IPv4 address is a be32. IpAddress holds either family. All are trivially copyable and thread-compatible.
#pragma once

#include <array>
#include <bit>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "datapath/base/byte_order.h"

namespace vswitch {

struct MacAddress {
  std::array<uint8_t, 6> bytes{};

  constexpr auto operator<=>(const MacAddress&) const = default;
  constexpr bool is_multicast() const { return (bytes[0] & 1) != 0; }  // broadcast included
  constexpr bool is_broadcast() const { return to_u64() == 0xffffffffffffULL; }
  constexpr bool is_zero() const { return to_u64() == 0; }
  // The address as the low 48 bits, first byte most significant.
  constexpr uint64_t to_u64() const {
    uint64_t v = 0;
    for (uint8_t b : bytes) v = v << 8 | b;
    return v;
  }
  static constexpr MacAddress from_u64(uint64_t v) {
    MacAddress m;
    for (int i = 5; i >= 0; --i, v >>= 8) m.bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(v);
    return m;
  }
  static std::optional<MacAddress> parse(std::string_view text);  // "00:11:22:aa:bb:cc", case-insensitive
  std::string to_string() const;                                  // lower case, colons
};

struct Ipv6Address {
  std::array<uint8_t, 16> bytes{};

  constexpr auto operator<=>(const Ipv6Address&) const = default;
  // As two numbers: the default is a call that every packet of a tunnel, and every translation, would make.
  constexpr bool operator==(const Ipv6Address& other) const {
    const auto ours = std::bit_cast<std::array<uint64_t, 2>>(bytes);
    const auto others = std::bit_cast<std::array<uint64_t, 2>>(other.bytes);
    return ((ours[0] ^ others[0]) | (ours[1] ^ others[1])) == 0;
  }
  constexpr bool is_zero() const { return *this == Ipv6Address{}; }
  constexpr bool is_multicast() const { return bytes[0] == 0xff; }
  static std::optional<Ipv6Address> parse(std::string_view text);
  std::string to_string() const;  // RFC 5952
};

std::optional<be32> parse_ipv4(std::string_view text);
std::string ipv4_to_string(be32 address);

// An address of either family. `family` none means "not given".
struct IpAddress {
  enum class Family : uint8_t { none, v4, v6 };
  Family family = Family::none;
  be32 v4{};
  Ipv6Address v6{};

  static IpAddress from_v4(be32 a) { return {Family::v4, a, {}}; }
  static IpAddress from_v6(const Ipv6Address& a) { return {Family::v6, {}, a}; }
  static std::optional<IpAddress> parse(std::string_view text);
  bool operator==(const IpAddress&) const = default;
  bool is_set() const { return family != Family::none; }
  bool is_v6() const { return family == Family::v6; }
  bool is_unspecified() const { return is_v6() ? v6.is_zero() : !v4; }  // 0.0.0.0, :: or not given
  bool is_multicast() const { return is_v6() ? v6.is_multicast() : (v4.host() >> 28) == 0xe; }
  std::string to_string() const;  // "" when not given
};

}  // namespace vswitch
