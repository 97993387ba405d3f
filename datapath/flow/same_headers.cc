#include "datapath/flow/same_headers.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "datapath/base/byte_order.h"

namespace vswitch {
namespace {

constexpr size_t kCompared = 48;  // Ethernet, IPv4, and TCP up to its flags
constexpr size_t kPrefetched = 8;
constexpr uint8_t kTcp = 6, kUdp = 17;

using Words = std::array<uint64_t, kCompared / sizeof(uint64_t)>;

// The bytes that the key, the layers and the hash depend on.
constexpr Words compared_bytes(bool tcp) {
  std::array<uint8_t, kCompared> bytes{};
  for (uint8_t& byte : bytes) byte = 0xff;
  for (const size_t ignored : {18, 19, 24, 25}) bytes[ignored] = 0;  // IPv4: id, checksum
  for (size_t i = 38; i < (tcp ? 46 : kCompared); ++i)
    bytes[i] = 0;  // behind the ports; of TCP, up to length and flags
  return std::bit_cast<Words>(bytes);
}
constexpr Words kTcpBytes = compared_bytes(true), kUdpBytes = compared_bytes(false);

bool has_other_metadata(const Packet& packet) {
  return (packet.dp_hash | packet.skb_priority | packet.skb_mark | uint32_t{packet.has_tunnel}) != 0;
}

Words load(const Packet& packet) { return load_unaligned<Words>(packet.data()); }

// The bytes that count in frames like this one; null: it is none that is compared.
const Words* bytes_for(const Packet& packet) {
  if (packet.size() < kCompared || has_other_metadata(packet)) return nullptr;
  const uint8_t* frame = packet.data();
  const bool plain_ipv4 =
      frame[12] == 0x08 && frame[13] == 0 && frame[14] == 0x45 && (frame[20] & 0x3f) == 0 && frame[21] == 0;
  if (!plain_ipv4) return nullptr;
  return frame[23] == kTcp ? &kTcpBytes : frame[23] == kUdp ? &kUdpBytes : nullptr;
}

}  // namespace

bool have_same_headers(const Packet* const packets[], size_t count) {
  for (size_t i = 0; i < std::min(count, kPrefetched); ++i) __builtin_prefetch(packets[i]->data());
  const Packet& first = *packets[0];
  const Words* const counting = bytes_for(first);
  if (counting == nullptr) return false;
  const Words mask = *counting, expected = load(first);
  for (size_t i = 1; i < count; ++i) {
    const Packet& packet = *packets[i];
    if (i + kPrefetched <= count) __builtin_prefetch(packets[i + kPrefetched - 1]->data());
    if (packet.size() != first.size()) return false;
    const Words words = load(packet);
    uint64_t difference =
        (packet.in_port ^ first.in_port) | (packet.recirc_id ^ first.recirc_id) | uint64_t{has_other_metadata(packet)};
    for (size_t w = 0; w < words.size(); ++w) difference |= (words[w] ^ expected[w]) & mask[w];
    if (difference != 0) return false;
  }
  return true;
}

}  // namespace vswitch
