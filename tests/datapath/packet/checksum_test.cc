#include "datapath/packet/checksum.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "tests/support/frame_spec.h"

namespace vswitch {
namespace {

TEST(Checksum, Rfc1071Example) {
  const uint8_t bytes[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
  EXPECT_EQ(checksum(bytes), to_be16(0x220d));
  EXPECT_EQ(checksum({}), to_be16(0xffff));
}

TEST(Checksum, EqualsTheNaiveSumAtEverySizeAndAlignment) {
  Bytes bytes(300);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 37 + 200);
  for (size_t start = 0; start < 9; ++start) {
    for (size_t size = 0; start + size <= bytes.size(); ++size) {
      const auto expected = static_cast<uint16_t>(~naive_sum(&bytes[start], size));
      ASSERT_EQ(checksum({&bytes[start], size}).host(), expected) << start << " " << size;
    }
  }
}

TEST(Checksum, LargestCarriesAreNotLost) {
  const Bytes ones(65536, 0xff);
  EXPECT_EQ(checksum(ones), to_be16(0));
  EXPECT_EQ(checksum_finish(checksum_partial(ones, 0xffffffff)), to_be16(0));
}

TEST(Checksum, PiecesAddUp) {
  ASSERT_TRUE(rc::check([](const Bytes& head, const Bytes& tail) {
    const size_t even = head.size() / 2 * 2;
    Bytes all(head.begin(), head.begin() + static_cast<ptrdiff_t>(even));
    all.insert(all.end(), tail.begin(), tail.end());
    RC_ASSERT(checksum_finish(checksum_partial(tail, checksum_partial({head.data(), even}))) == checksum(all));
  }));
}

// Replaces some bytes. One that stays is never zero: only of zeros alone do the two representations of zero meet.
template <typename Value>
void check_update(const Bytes& seed, const Bytes& replacement) {
  Bytes before(seed);
  before.resize(std::max<size_t>(seed.size(), 40) / 2 * 2);
  before.back() |= 1;
  Bytes after(before);
  const size_t at = seed.size() % 3 * 4;
  std::copy_n(replacement.begin(), std::min(replacement.size(), sizeof(Value)),
              after.begin() + static_cast<ptrdiff_t>(at));
  const be16 updated =
      checksum_update(checksum(before), load_unaligned<Value>(&before[at]), load_unaligned<Value>(&after[at]));
  RC_ASSERT(updated == checksum(after));
}

TEST(Checksum, UpdateEqualsRecomputation) {
  ASSERT_TRUE(rc::check([](const Bytes& seed, const Bytes& replacement) {
    check_update<be16>(seed, replacement);
    check_update<be32>(seed, replacement);
    check_update<Ipv6Address>(seed, replacement);
  }));
}

TEST(Checksum, UpdateNeverMakesTheOtherZero) {
  // Changing 0x5555 to 0x0000 beside 0xaaaa: recomputed from scratch it is 0x5555.
  EXPECT_EQ(checksum_update(to_be16(0x0000), to_be16(0x5555), to_be16(0x0000)), to_be16(0x5555));
  // RFC 1624, section 4.
  EXPECT_EQ(checksum_update(to_be16(0xdd2f), to_be16(0x5555), to_be16(0x3285)), to_be16(0x0000));
}

TEST(Checksum, PseudoHeaders) {
  ASSERT_TRUE(rc::check([](uint32_t src, uint32_t dst, uint8_t proto, uint16_t size) {
    Bytes header = {static_cast<uint8_t>(src >> 24),
                    static_cast<uint8_t>(src >> 16),
                    static_cast<uint8_t>(src >> 8),
                    static_cast<uint8_t>(src),
                    static_cast<uint8_t>(dst >> 24),
                    static_cast<uint8_t>(dst >> 16),
                    static_cast<uint8_t>(dst >> 8),
                    static_cast<uint8_t>(dst),
                    0,
                    proto,
                    static_cast<uint8_t>(size >> 8),
                    static_cast<uint8_t>(size)};
    RC_ASSERT(checksum_finish(pseudo_header_sum(to_be32(src), to_be32(dst), proto, size)) == checksum(header));
  }));
  const auto src = *Ipv6Address::parse("2001:db8::ff00:1");
  const auto dst = *Ipv6Address::parse("ff02::1:ff12:3456");
  Bytes header(src.bytes.begin(), src.bytes.end());
  header.insert(header.end(), dst.bytes.begin(), dst.bytes.end());
  header.insert(header.end(), {0x00, 0x01, 0x86, 0xa0, 0, 0, 0, 58});  // 100,000 bytes
  EXPECT_EQ(checksum_finish(pseudo_header_sum(src, dst, 58, 100000)), checksum(header));
}

TEST(Crc32c, KnownVectors) {
  const std::string digits = "123456789";
  const auto* text = reinterpret_cast<const uint8_t*>(digits.data());
  EXPECT_EQ(crc32c({text, digits.size()}), to_be32(0x839206e3));  // 0xe3069283, least significant byte first
  EXPECT_EQ(crc32c(Bytes(32, 0)), to_be32(0xaa36918a));           // RFC 3720, B.4
  EXPECT_EQ(crc32c(Bytes(32, 0xff)), to_be32(0x43aba862));
}

TEST(Crc32c, EqualsTheBitwiseDefinition) {
  ASSERT_TRUE(rc::check([](const Bytes& bytes) {
    RC_ASSERT(crc32c(bytes).host() == __builtin_bswap32(naive_crc32c(bytes.data(), bytes.size())));
  }));
}

}  // namespace
}  // namespace vswitch
