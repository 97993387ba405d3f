#include "datapath/packet/checksum.h"

#include <array>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace vswitch {

namespace {

// A ones' complement sum does not care about byte order as long as all its words are read in the same one (RFC 1071,
// section 2), so everything here adds words as the machine loads them.
uint32_t fold_to_32(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  return static_cast<uint32_t>((sum & 0xffffffff) + (sum >> 32));
}

uint16_t fold_to_16(uint64_t sum) {
  const uint32_t half = fold_to_32(sum);
  const uint32_t quarter = (half & 0xffff) + (half >> 16);
  return static_cast<uint16_t>((quarter & 0xffff) + (quarter >> 16));
}

// The last up to seven bytes; a byte that is missing to a word is zero, as the RFC pads.
uint64_t sum_tail(const uint8_t* from, size_t n) {
  uint64_t sum = 0;
  if ((n & 4) != 0) {
    sum += load_unaligned<uint32_t>(from);
    from += 4;
  }
  if ((n & 2) != 0) {
    sum += load_unaligned<uint16_t>(from);
    from += 2;
  }
  if ((n & 1) != 0) sum += to_be16(static_cast<uint16_t>(*from << 8)).raw();
  return sum;
}

// RFC 1624, equation 3. It never turns a proper checksum into the other representation of zero.
be16 update(be16 checksum, uint64_t inverted_old_plus_new) {
  const uint64_t sum = static_cast<uint16_t>(~checksum.raw());
  return be16::from_raw(static_cast<uint16_t>(~fold_to_16(sum + inverted_old_plus_new)));
}

constexpr std::array<uint32_t, 256> make_crc32c_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
    table[i] = crc;
  }
  return table;
}

uint32_t crc32c_portable(std::span<const uint8_t> bytes) {
  static constexpr std::array<uint32_t, 256> kTable = make_crc32c_table();
  uint32_t crc = 0xffffffff;
  for (uint8_t byte : bytes) crc = kTable[(crc ^ byte) & 0xff] ^ crc >> 8;
  return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t crc32c_sse42(std::span<const uint8_t> bytes) {
  uint64_t crc = 0xffffffff;
  const uint8_t* p = bytes.data();
  size_t n = bytes.size();
  for (; n >= 8; p += 8, n -= 8) crc = _mm_crc32_u64(crc, load_unaligned<uint64_t>(p));
  auto crc32 = static_cast<uint32_t>(crc);
  for (; n != 0; ++p, --n) crc32 = _mm_crc32_u8(crc32, *p);
  return ~crc32;
}
#endif

uint32_t crc32c_value(std::span<const uint8_t> bytes) {
#if defined(__x86_64__)
  static const bool has_instruction = __builtin_cpu_supports("sse4.2");
  if (has_instruction) return crc32c_sse42(bytes);
#endif
  return crc32c_portable(bytes);
}

// Sums 32-bit halves into 64-bit accumulators: no carry to propagate.
uint64_t sum_words(const uint8_t* from, size_t n_words) {
  uint64_t low = 0, high = 0;
  for (size_t i = 0; i < n_words; ++i) {
    const auto word = load_unaligned<uint64_t>(from + i * 8);
    low += word & 0xffffffff;
    high += word >> 32;
  }
  return low + high;
}

#if defined(__x86_64__)
// The same, sixteen words at a time.
__attribute__((target("avx2"))) uint64_t sum_words_avx2(const uint8_t* from, size_t n_words) {
  const __m256i low_half = _mm256_set1_epi64x(0xffffffff);
  __m256i low0 = _mm256_setzero_si256(), low1 = low0, high0 = low0, high1 = low0;
  size_t i = 0;
  for (; i + 16 <= n_words; i += 16) {
    const auto* at = reinterpret_cast<const __m256i*>(from + i * 8);
    const __m256i a = _mm256_loadu_si256(at), b = _mm256_loadu_si256(at + 1);
    const __m256i c = _mm256_loadu_si256(at + 2), d = _mm256_loadu_si256(at + 3);
    low0 = _mm256_add_epi64(low0, _mm256_add_epi64(_mm256_and_si256(a, low_half), _mm256_and_si256(b, low_half)));
    high0 = _mm256_add_epi64(high0, _mm256_add_epi64(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32)));
    low1 = _mm256_add_epi64(low1, _mm256_add_epi64(_mm256_and_si256(c, low_half), _mm256_and_si256(d, low_half)));
    high1 = _mm256_add_epi64(high1, _mm256_add_epi64(_mm256_srli_epi64(c, 32), _mm256_srli_epi64(d, 32)));
  }
  const __m256i all = _mm256_add_epi64(_mm256_add_epi64(low0, low1), _mm256_add_epi64(high0, high1));
  alignas(32) std::array<uint64_t, 4> lanes;
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes.data()), all);
  return lanes[0] + lanes[1] + lanes[2] + lanes[3] + sum_words(from + i * 8, n_words - i);
}
#endif

// From here on wide instructions pay for their set-up.
constexpr size_t kManyWords = 32;

uint64_t sum_all_words(const uint8_t* from, size_t n_words) {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (n_words >= kManyWords && has_avx2) return sum_words_avx2(from, n_words);
#endif
  return sum_words(from, n_words);
}

}  // namespace

uint32_t checksum_partial(std::span<const uint8_t> bytes, uint32_t sum) {
  const size_t n_words = bytes.size() / 8;
  const uint64_t words = sum_all_words(bytes.data(), n_words);
  return fold_to_32(sum + words + sum_tail(bytes.data() + n_words * 8, bytes.size() % 8));
}

be16 checksum_finish(uint32_t sum) { return be16::from_raw(static_cast<uint16_t>(~fold_to_16(sum))); }

uint32_t pseudo_header_sum(be32 src, be32 dst, uint8_t proto, uint32_t length) {
  return fold_to_32(uint64_t{src.raw()} + dst.raw() + to_be16(proto).raw() + to_be32(length).raw());
}

uint32_t pseudo_header_sum(const Ipv6Address& src, const Ipv6Address& dst, uint8_t proto, uint32_t length) {
  const uint64_t sum = uint64_t{checksum_partial(src.bytes)} + checksum_partial(dst.bytes);
  return fold_to_32(sum + to_be16(proto).raw() + to_be32(length).raw());
}

be16 checksum_update(be16 checksum, be16 old_value, be16 new_value) {
  return update(checksum, uint64_t{static_cast<uint16_t>(~old_value.raw())} + new_value.raw());
}

be16 checksum_update(be16 checksum, be32 old_value, be32 new_value) {
  return update(checksum, uint64_t{~old_value.raw()} + new_value.raw());
}

be16 checksum_update(be16 checksum, const Ipv6Address& old_value, const Ipv6Address& new_value) {
  return update(checksum, uint64_t{~checksum_partial(old_value.bytes)} + checksum_partial(new_value.bytes));
}

// RFC 9260, appendix A: the CRC's least significant byte goes first on the wire.
be32 crc32c(std::span<const uint8_t> bytes) {
  const uint32_t crc = crc32c_value(bytes);
  return be32::from_raw(std::endian::native == std::endian::little ? crc : __builtin_bswap32(crc));
}

}  // namespace vswitch
