// A bit for each packet of a batch, packet i's at 1 << i: which packets are meant.
//
// Nearly always it is all packets of the batch, the lowest bits without a gap. What is "likely" here is straight code
// for that case, and right for any other.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace vswitch {

// The lowest n bits.
constexpr uint32_t all_of(size_t n) { return n >= 32 ? ~uint32_t{0} : (uint32_t{1} << n) - 1; }

constexpr bool without_gap(uint32_t bits) { return (bits & (bits + 1)) == 0; }

// How many there are. (Processors for which we are compiled need not have an instruction for it.)
constexpr size_t count_likely_bits(uint32_t bits) {
  if (__builtin_expect(without_gap(bits), 1)) return static_cast<size_t>(std::countr_one(bits));
  return static_cast<size_t>(std::popcount(bits));
}

// Calls function(i) for each bit, in their order.
template <typename Function>
inline void for_each_bit(uint32_t bits, Function&& function) {
  for (; bits != 0; bits &= bits - 1) function(static_cast<size_t>(std::countr_zero(bits)));
}

template <typename Function>
inline void for_each_likely_bit(uint32_t bits, Function&& function) {
  if (__builtin_expect(!without_gap(bits), 0)) return for_each_bit(bits, function);
  const auto count = static_cast<size_t>(std::countr_one(bits));
  for (size_t i = 0; i < count; ++i) function(i);
}

}  // namespace vswitch
