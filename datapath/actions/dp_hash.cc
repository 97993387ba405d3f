#include "datapath/actions/dp_hash.h"

#include <array>
#include <utility>

namespace vswitch {

namespace {

// A 64-bit multiply-and-fold round per word: each input bit reaches every output bit after two of them.
uint64_t mix(uint64_t hash, uint64_t word) {
  const uint64_t product = (hash ^ word) * 0x9e3779b97f4a7c15;
  return product ^ product >> 32;
}

struct Endpoint {
  std::array<uint64_t, 2> address;
  uint64_t port;
  auto operator<=>(const Endpoint&) const = default;
};

std::array<uint64_t, 2> halves(const Ipv6Address& address) {
  return {load_unaligned<be64>(&address.bytes[0]).host(), load_unaligned<be64>(&address.bytes[8]).host()};
}

Endpoint source(const FlowKey& key) {
  if (!key.is_ip()) return {{key.eth_src.to_u64(), 0}, 0};
  const bool v4 = key.eth_type == kEthTypeIpv4;
  return {v4 ? std::array<uint64_t, 2>{key.nw_src.host(), 0} : halves(key.ipv6_src), key.tp_src.host()};
}

Endpoint destination(const FlowKey& key) {
  if (!key.is_ip()) return {{key.eth_dst.to_u64(), 0}, 0};
  const bool v4 = key.eth_type == kEthTypeIpv4;
  return {v4 ? std::array<uint64_t, 2>{key.nw_dst.host(), 0} : halves(key.ipv6_dst), key.tp_dst.host()};
}

// Fragments but the first have no ports: without them the pieces of a datagram stay together.
void drop_ports_of_fragments(const FlowKey& key, Endpoint& a, Endpoint& b) {
  if ((key.nw_frag & kFragAny) != 0 || key.nw_proto == kProtoIcmp || key.nw_proto == kProtoIcmpv6) a.port = b.port = 0;
}

}  // namespace

uint32_t dp_hash(const HashAction& hash, const FlowKey& key) {
  Endpoint from = source(key);
  Endpoint to = destination(key);
  drop_ports_of_fragments(key, from, to);
  if (hash.algorithm == HashAlgorithm::symmetric_l4 && to < from) std::swap(from, to);
  uint64_t sum = mix(hash.basis, uint64_t{key.eth_type.host()} << 8 | key.nw_proto);
  for (const Endpoint& end : {from, to}) {
    sum = mix(mix(mix(sum, end.address[0]), end.address[1]), end.port);
  }
  sum = mix(sum, sum >> 29);
  const auto value = static_cast<uint32_t>(sum >> 32 ^ sum);
  return value != 0 ? value : 1;
}

}  // namespace vswitch
