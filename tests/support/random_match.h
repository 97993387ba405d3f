// Random keys and matches from a small universe, so that they overlap, shadow and just miss each other: for properties
// of classifier, flow table and translation. Everything follows from the seed.
#pragma once

#include <cstdint>
#include <random>

#include "datapath/flow/flow_key.h"
#include "vswitchd/rules/match.h"

namespace vswitch::test {

class RandomMatches {
 public:
  explicit RandomMatches(uint64_t seed) : random_(seed) {}

  // A key as a packet in the pipeline may have it: Ethernet with or without VLAN, ARP, IPv4 or IPv6 with TCP, UDP or
  // ICMP, with or without tunnel metadata and registers; in_port is 1 to 4.
  PipelineKey key();
  // A match on some fields of some key, with their prerequisites; addresses, ports and metadata also with masks.
  Match match();
  // Agrees with `key` in every bit of `mask`; the other bits are random, from the universe or beyond it.
  PipelineKey agreeing(const PipelineKey& key, const PipelineMask& mask);

  uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }
  bool one_in(uint32_t n) { return below(n) == 0; }

 private:
  void choose_l3(FlowKey& key);
  void choose_l4(FlowKey& key);
  void choose_tunnel(FlowKey& key);
  void mask_metadata(PipelineMask& mask);
  void mask_l2(FlowMask& mask);
  void mask_l3(const FlowKey& key, FlowMask& mask);
  void mask_l4(const FlowKey& key, FlowMask& mask);
  be32 random_mask32();
  be16 random_mask16();
  Ipv6Address random_mask128();

  std::mt19937_64 random_;
};

}  // namespace vswitch::test
