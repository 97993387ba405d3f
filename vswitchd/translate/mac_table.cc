#include "vswitchd/translate/mac_table.h"

#include <algorithm>
#include <atomic>
#include <list>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <thread>
#include <unordered_map>
#include <utility>

namespace vswitch {
namespace {

constexpr size_t kMinEntries = 10, kMaxEntries = 1'000'000;
constexpr Nanoseconds kMinAgeing = std::chrono::seconds(15), kMaxAgeing = std::chrono::seconds(3600);
// An entry that was seen this recently is not refreshed again: readers stay readers.
constexpr Nanoseconds kRefreshInterval = std::chrono::seconds(1);
// What is done under the lock in one go, when the whole table has to be gone through.
constexpr size_t kEntriesPerPart = 256, kBucketsPerPart = 1024;
// Whoever makes up a new address for each packet always has somebody waiting to learn.
constexpr int kMostYields = 100;

uint64_t key_of(uint16_t vlan, const MacAddress& mac) { return uint64_t{vlan} << 48 | mac.to_u64(); }

}  // namespace

struct MacTable::Implementation {
  explicit Implementation(const Clock& c) : clock(c) {}

  struct Entry;
  using Lru = std::list<Entry*>;
  struct Entry {
    MacEntry value;
    Lru::iterator place;  // in its port's list; static entries are in none
  };
  using Table = std::unordered_map<uint64_t, Entry>;

  const Clock& clock;
  mutable std::shared_mutex mutex;
  std::atomic<uint32_t> learners{0};  // those who wait to learn
  Table table;
  std::unordered_map<OfPort, Lru> by_port;       // least recently seen first; no empty lists
  std::set<std::pair<size_t, OfPort>> by_usage;  // (length of the list, port)
  size_t max_entries = kDefaultMaxEntries;
  Nanoseconds ageing = kDefaultAgeing;
  Counters counts;
  std::atomic<uint64_t> generation{0};

  void changed() { generation.fetch_add(1, std::memory_order_release); }
  bool expired(const MacEntry& e, Nanoseconds now) const { return !e.is_static && now - e.seen >= ageing; }

  void set_usage(OfPort port, size_t before, size_t after) {
    if (before != 0) by_usage.erase({before, port});
    if (after != 0) by_usage.emplace(after, port);
  }

  void enlist(Entry& entry) {
    Lru& lru = by_port[entry.value.port];
    entry.place = lru.insert(lru.end(), &entry);
    set_usage(entry.value.port, lru.size() - 1, lru.size());
  }

  void delist(Entry& entry) {
    auto it = by_port.find(entry.value.port);
    it->second.erase(entry.place);
    set_usage(entry.value.port, it->second.size() + 1, it->second.size());
    if (it->second.empty()) by_port.erase(it);
  }

  Table::iterator erase(Table::iterator it) {
    if (!it->second.value.is_static) delist(it->second);
    changed();
    return table.erase(it);
  }

  void refresh(Entry& entry, Nanoseconds now) {
    entry.value.seen = now;
    Lru& lru = by_port[entry.value.port];
    lru.splice(lru.end(), lru, entry.place);
  }

  std::unique_lock<std::shared_mutex> lock_to_learn() {
    learners.fetch_add(1, std::memory_order_relaxed);
    std::unique_lock lock(mutex);
    learners.fetch_sub(1, std::memory_order_relaxed);
    return lock;
  }

  // Between two parts: the lock itself would let who has just let go of it in again before who waits to learn.
  void give_way() const {
    for (int n = 0; n < kMostYields && learners.load(std::memory_order_relaxed) != 0; ++n) std::this_thread::yield();
  }

  std::vector<OfPort> ports_with_learned() const {
    const std::shared_lock lock(mutex);
    std::vector<OfPort> ports;
    for (const auto& [port, lru] : by_port) ports.push_back(port);
    return ports;
  }

  // One part of the learned entries of a port, least recently seen first, as long as `goes(entry)`. Returns how many.
  size_t erase_part(OfPort port, const auto& goes) {
    size_t gone = 0;
    for (auto it = by_port.find(port); it != by_port.end() && gone < kEntriesPerPart; it = by_port.find(port)) {
      const MacEntry& oldest = it->second.front()->value;
      if (!goes(oldest)) break;
      erase(table.find(key_of(oldest.vlan, oldest.mac)));
      ++gone;
    }
    return gone;
  }

  size_t erase_oldest(OfPort port, const auto& goes) {
    for (size_t all = 0;;) {
      give_way();
      const std::unique_lock lock(mutex);
      const size_t gone = erase_part(port, goes);
      all += gone;
      if (gone < kEntriesPerPart) return all;
    }
  }

  size_t erase_oldest(const auto& goes) {
    size_t all = 0;
    for (OfPort port : ports_with_learned()) all += erase_oldest(port, goes);
    return all;
  }

  // Copies of the entries that are wanted, bucket by bucket, in no order.
  std::vector<MacEntry> collect(const auto& wanted) const {
    std::vector<MacEntry> all;
    size_t bucket = 0, buckets = 0;
    do {
      give_way();
      const std::shared_lock lock(mutex);
      if (buckets != table.bucket_count()) {  // first, or the table has grown: every entry has another place
        all.clear();
        bucket = 0;
        buckets = table.bucket_count();
        all.reserve(std::min(buckets, 2 * table.size() + kBucketsPerPart));  // little is moved under the lock
      }
      const size_t end = std::min(bucket + kBucketsPerPart, buckets);
      for (; bucket < end; ++bucket) collect_bucket(bucket, wanted, all);
    } while (bucket < buckets);
    return all;
  }

  void collect_bucket(size_t bucket, const auto& wanted, std::vector<MacEntry>& all) const {
    for (auto it = table.cbegin(bucket); it != table.cend(bucket); ++it) {
      if (wanted(it->second.value)) all.push_back(it->second.value);
    }
  }

  // Makes room for one more. False if everything is static.
  bool evict() {
    if (by_usage.empty()) return false;
    const OfPort port = by_usage.rbegin()->second;
    const MacEntry& oldest = by_port[port].front()->value;
    erase(table.find(key_of(oldest.vlan, oldest.mac)));
    ++counts.evicted;
    return true;
  }

  bool insert(uint16_t vlan, const MacAddress& mac, OfPort port, bool is_static) {
    while (table.size() >= max_entries) {
      if (!evict()) return false;
    }
    Entry& entry = table[key_of(vlan, mac)];
    entry.value = {port, vlan, mac, clock.now(), is_static};
    if (!is_static) enlist(entry);
    changed();
    return true;
  }

  // Whether learn() would change nothing, not even the time.
  bool is_fresh(uint16_t vlan, const MacAddress& mac, OfPort port) const {
    auto it = table.find(key_of(vlan, mac));
    if (it == table.end()) return false;
    const MacEntry& e = it->second.value;
    const Nanoseconds now = clock.now();
    return e.is_static || (e.port == port && !expired(e, now) && now - e.seen < kRefreshInterval);
  }
};

MacTable::MacTable(const Clock& clock) : impl_(std::make_unique<Implementation>(clock)) {}
MacTable::~MacTable() = default;

void MacTable::configure(size_t max_entries, Nanoseconds ageing) {
  const std::unique_lock lock(impl_->mutex);
  impl_->max_entries = std::clamp(max_entries, kMinEntries, kMaxEntries);
  impl_->ageing = std::clamp(ageing, kMinAgeing, kMaxAgeing);
  while (impl_->table.size() > impl_->max_entries && impl_->evict()) {
  }
}

std::optional<OfPort> MacTable::lookup(uint16_t vlan, const MacAddress& mac) const {
  const std::shared_lock lock(impl_->mutex);
  auto it = impl_->table.find(key_of(vlan, mac));
  if (it == impl_->table.end() || impl_->expired(it->second.value, impl_->clock.now())) return std::nullopt;
  return it->second.value.port;
}

bool MacTable::learn(uint16_t vlan, const MacAddress& mac, OfPort port) {
  if (mac.is_multicast()) return false;
  {
    const std::shared_lock lock(impl_->mutex);
    if (impl_->is_fresh(vlan, mac, port)) return false;
  }
  const auto lock = impl_->lock_to_learn();
  auto it = impl_->table.find(key_of(vlan, mac));
  if (it == impl_->table.end()) {
    if (!impl_->insert(vlan, mac, port, false)) return false;
    ++impl_->counts.learned;
    return true;
  }
  Implementation::Entry& entry = it->second;
  if (entry.value.is_static) return false;
  const Nanoseconds now = impl_->clock.now();
  const bool was_expired = impl_->expired(entry.value, now), moved = entry.value.port != port;
  if (moved) {
    impl_->delist(entry);
    entry.value.port = port;
    impl_->enlist(entry);
    if (!was_expired) ++impl_->counts.moved;
  }
  if (was_expired) {
    ++impl_->counts.expired;
    ++impl_->counts.learned;
  }
  impl_->refresh(entry, now);
  if (moved || was_expired) impl_->changed();
  return moved || was_expired;
}

Status MacTable::add_static(uint16_t vlan, const MacAddress& mac, OfPort port) {
  if (mac.is_multicast()) return invalid_argument(mac.to_string() + " is a multicast address; give a unicast address");
  if (vlan > 4095) return invalid_argument("VLAN " + std::to_string(vlan) + " is out of range; give 0 to 4095");
  const std::unique_lock lock(impl_->mutex);
  auto it = impl_->table.find(key_of(vlan, mac));
  if (it != impl_->table.end()) {
    if (it->second.value.is_static && it->second.value.port == port) return {};
    impl_->erase(it);
  }
  if (!impl_->insert(vlan, mac, port, true)) {
    return resource_exhausted("the MAC table is full of " + std::to_string(impl_->table.size()) + " static entries");
  }
  return {};
}

bool MacTable::remove(uint16_t vlan, const MacAddress& mac) {
  const std::unique_lock lock(impl_->mutex);
  auto it = impl_->table.find(key_of(vlan, mac));
  if (it == impl_->table.end()) return false;
  impl_->erase(it);
  return true;
}

void MacTable::remove_port(OfPort port) {
  impl_->erase_oldest(port, [](const MacEntry&) { return true; });
  const auto is_static = [port](const MacEntry& entry) { return entry.is_static && entry.port == port; };
  for (const MacEntry& entry : impl_->collect(is_static)) {
    const std::unique_lock lock(impl_->mutex);
    const auto it = impl_->table.find(key_of(entry.vlan, entry.mac));
    if (it != impl_->table.end() && is_static(it->second.value)) impl_->erase(it);
  }
}

void MacTable::flush() {
  const Nanoseconds now = impl_->clock.now();
  impl_->erase_oldest([now](const MacEntry& entry) { return entry.seen <= now; });
}

bool MacTable::expire() {
  const Nanoseconds now = impl_->clock.now();
  const size_t gone = impl_->erase_oldest([this, now](const MacEntry& entry) { return impl_->expired(entry, now); });
  if (gone == 0) return false;
  const std::unique_lock lock(impl_->mutex);
  impl_->counts.expired += gone;
  return true;
}

std::vector<MacEntry> MacTable::entries() const {
  const Nanoseconds now = impl_->clock.now();
  std::vector<MacEntry> all =
      impl_->collect([this, now](const MacEntry& entry) { return !impl_->expired(entry, now); });
  std::sort(all.begin(), all.end(), [](const MacEntry& a, const MacEntry& b) {
    return std::pair(a.vlan, a.mac.to_u64()) < std::pair(b.vlan, b.mac.to_u64());
  });
  return all;
}

uint64_t MacTable::generation() const { return impl_->generation.load(std::memory_order_acquire); }

MacTable::Counters MacTable::counters() const {
  const std::shared_lock lock(impl_->mutex);
  return impl_->counts;
}

}  // namespace vswitch
