// Big-endian integers whose byte order is part of the type.
//
// be16, be32 and be64 hold a value exactly as it stands on the wire. There is no implicit conversion to or from a
// native integer: `be16::from_host(80)` and `port.host()` are the only doors. Equality and the bit operations work on
// the wire form directly (they are the same in either order); ordering and arithmetic need `.host()`.
// Trivially copyable, no padding, so they may stand inside header structs that overlay packet bytes.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <functional>

namespace vswitch {

template <std::unsigned_integral T>
class BigEndian {
 public:
  constexpr BigEndian() = default;
  static constexpr BigEndian from_host(T value) { return BigEndian(swap(value)); }
  // `raw` is already in wire order, e.g. read with memcpy.
  static constexpr BigEndian from_raw(T raw) { return BigEndian(raw); }

  constexpr T host() const { return swap(raw_); }
  constexpr T raw() const { return raw_; }
  constexpr explicit operator bool() const { return raw_ != 0; }

  constexpr bool operator==(const BigEndian&) const = default;
  constexpr BigEndian operator&(BigEndian o) const { return BigEndian(static_cast<T>(raw_ & o.raw_)); }
  constexpr BigEndian operator|(BigEndian o) const { return BigEndian(static_cast<T>(raw_ | o.raw_)); }
  constexpr BigEndian operator^(BigEndian o) const { return BigEndian(static_cast<T>(raw_ ^ o.raw_)); }
  constexpr BigEndian operator~() const { return BigEndian(static_cast<T>(~raw_)); }
  constexpr BigEndian& operator&=(BigEndian o) { return *this = *this & o; }
  constexpr BigEndian& operator|=(BigEndian o) { return *this = *this | o; }

 private:
  constexpr explicit BigEndian(T raw) : raw_(raw) {}
  static constexpr T swap(T v) {
    if constexpr (std::endian::native == std::endian::big) return v;
    if constexpr (sizeof(T) == 2) return __builtin_bswap16(v);
    if constexpr (sizeof(T) == 4) return __builtin_bswap32(v);
    if constexpr (sizeof(T) == 8) return __builtin_bswap64(v);
  }
  T raw_ = 0;
};

using be16 = BigEndian<uint16_t>;
using be32 = BigEndian<uint32_t>;
using be64 = BigEndian<uint64_t>;
static_assert(sizeof(be16) == 2 && sizeof(be32) == 4 && sizeof(be64) == 8);

constexpr be16 to_be16(uint16_t v) { return be16::from_host(v); }
constexpr be32 to_be32(uint32_t v) { return be32::from_host(v); }
constexpr be64 to_be64(uint64_t v) { return be64::from_host(v); }

// Unaligned reads and writes; packet headers have no alignment promise.
template <typename T>
inline T load_unaligned(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <typename T>
inline void store_unaligned(void* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

}  // namespace vswitch

template <std::unsigned_integral T>
struct std::hash<vswitch::BigEndian<T>> {
  size_t operator()(const vswitch::BigEndian<T>& v) const noexcept { return std::hash<T>{}(v.raw()); }
};
