// MacTable: which port of a bridge a (VLAN, MAC address) was last seen on.
//
// Bounded: when full, an entry of the port that holds most entries goes first (so a MAC flood from one port does not
// evict the others'), least recently seen first. Entries age; static entries do not. A gratuitous ARP locks an entry
// for 5 s against moves from a bond member (not used before bonds exist).
//
// Thread safety: all functions from any thread (reader/writer lock inside; used in the slow path only). Listing,
// ageing, flushing and removing a port go through the table in parts, between which whoever learns comes first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "datapath/base/address.h"
#include "datapath/base/clock.h"
#include "datapath/base/status.h"
#include "vswitchd/rules/rule_action.h"

namespace vswitch {

struct MacEntry {
  OfPort port = 0;
  uint16_t vlan = 0;
  MacAddress mac{};
  Nanoseconds seen{};  // last refreshed
  bool is_static = false;
};

class MacTable {
 public:
  static constexpr size_t kDefaultMaxEntries = 8192;
  static constexpr Nanoseconds kDefaultAgeing = std::chrono::seconds(300);

  explicit MacTable(const Clock& clock);
  ~MacTable();

  void configure(size_t max_entries, Nanoseconds ageing);  // 10..1'000'000; 15..3600 s; clamps

  // The port, or nullopt. Expired entries are not found.
  std::optional<OfPort> lookup(uint16_t vlan, const MacAddress& mac) const;
  // Returns true if the table changed in a way that changes forwarding (new entry or moved port), false if only
  // refreshed.
  bool learn(uint16_t vlan, const MacAddress& mac, OfPort port);
  Status add_static(uint16_t vlan, const MacAddress& mac, OfPort port);
  bool remove(uint16_t vlan, const MacAddress& mac);
  void remove_port(OfPort port);
  void flush();  // what is learned while it goes on stays
  // Removes what has expired; true if anything went.
  bool expire();
  // By VLAN and address. Has all that are there from beginning to end, and each once; what comes or goes meanwhile may
  // be in it.
  std::vector<MacEntry> entries() const;

  // Changes whenever forwarding might: revalidation depends on it.
  uint64_t generation() const;
  struct Counters {
    uint64_t learned = 0, moved = 0, expired = 0, evicted = 0;
  };
  Counters counters() const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> impl_;
};

}  // namespace vswitch
