#include "vswitchd/rules/prefix_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "datapath/base/rcu.h"

namespace vswitch {
namespace {

constexpr size_t kSubtables = 200;
using Numbers = std::array<uint64_t, kSubtables / 64 + 1>;

template <typename Bits>
struct Prefix {
  Bits value;
  unsigned length;
  uint32_t subtable;
};

template <typename Bits>
bool covers(const Prefix<Bits>& prefix, Bits value) {
  return (prefix.value ^ value) >> (sizeof(Bits) * 8 - prefix.length) == 0;
}

template <typename Bits>
Numbers right_answer(const std::vector<Prefix<Bits>>& prefixes, Bits value) {
  Numbers numbers{};
  for (const Prefix<Bits>& prefix : prefixes) {
    if (covers(prefix, value)) numbers[prefix.subtable / 64] |= uint64_t{1} << (prefix.subtable % 64);
  }
  return numbers;
}

// How prefixes lie.
enum class Spread {
  crowded,  // at the start of the range, so that buckets burst far down and prefixes repeat
  dense,    // evenly below one prefix of eight bits, so that a node's buckets all have many
};

template <typename Bits>
class Model {
 public:
  Model(uint64_t seed, Spread spread)
      : index(spread == Spread::dense ? 0 : PrefixIndex<Bits>::kLarge), random_(seed), spread_(spread) {}

  Bits value() {
    Bits bits = 0;
    for (size_t i = 0; i < sizeof(Bits) / 4; ++i)
      bits = static_cast<Bits>(bits << 16 << 16) | static_cast<uint32_t>(random_());
    if (spread_ == Spread::dense) return random_() % 16 == 0 ? bits : bits >> 8 | Bits{10} << (sizeof(Bits) * 8 - 8);
    return random_() % 2 == 0 ? bits >> (random_() % (sizeof(Bits) * 8)) : bits;
  }
  unsigned length() {
    const unsigned shortest = spread_ == Spread::dense ? 8 : 1;
    return shortest + static_cast<unsigned>(random_() % (sizeof(Bits) * 8 - shortest + 1));
  }
  void insert() {
    const Prefix<Bits> added{value(), length(), static_cast<uint32_t>(random_() % kSubtables)};
    // One in four: a prefix that is there already, for another subtable.
    Prefix<Bits> prefix = added;
    if (!prefixes.empty() && random_() % 4 == 0) {
      prefix = prefixes[random_() % std::min<size_t>(prefixes.size(), 20)];
      prefix.subtable = added.subtable;
    }
    index.insert(prefix.value, prefix.length, prefix.subtable);
    prefixes.push_back(prefix);
  }
  void remove() {
    const size_t at = random_() % prefixes.size();
    index.remove(prefixes[at].value, prefixes[at].length, prefixes[at].subtable);
    prefixes[at] = prefixes.back();
    prefixes.pop_back();
  }
  // In one go or with the short prefixes first.
  std::pair<Numbers, unsigned> lookup(Bits value) {
    typename PrefixIndex<Bits>::Lookup lookup(index, value);
    while (lookup.walk()) {
    }
    waited += lookup.waits();
    Numbers numbers{};
    if (random_() % 2 == 0) {
      lookup.search_passed();
      lookup.finish(numbers);
    }
    lookup.walk_on();
    const unsigned decisive = lookup.search();
    lookup.finish(numbers);
    return {numbers, decisive};
  }
  void check() {
    for (int i = 0; i < 50; ++i) {
      const Bits v = random_() % 2 == 0 || prefixes.empty() ? value() : prefixes[random_() % prefixes.size()].value;
      const auto [numbers, decisive] = lookup(v);
      ASSERT_EQ(numbers, right_answer(prefixes, v));
      ASSERT_LE(decisive, sizeof(Bits) * 8);
      for (int j = 0; j < 5; ++j) {
        const Bits other = decisive == sizeof(Bits) * 8 ? v : v ^ static_cast<Bits>(value() >> decisive);
        ASSERT_EQ(right_answer(prefixes, other), numbers);
      }
      // No bit too many: some prefix agrees with the value up to the last of them, and goes on.
      ASSERT_TRUE(decisive == 0 || needs(v, decisive));
    }
  }

  PrefixIndex<Bits> index;
  std::vector<Prefix<Bits>> prefixes;
  size_t waited = 0;  // lookups that came to a wide node

 private:
  // Whether some prefix tells `v` from a value that differs first in bit `n`, counted from 1.
  bool needs(Bits v, unsigned n) const {
    for (const Prefix<Bits>& prefix : prefixes) {
      if (prefix.length < n) continue;
      if (n == 1 || (prefix.value ^ v) >> (sizeof(Bits) * 8 - (n - 1)) == 0) return true;
    }
    return false;
  }

  std::mt19937_64 random_;
  const Spread spread_;
};

template <typename Bits>
void check_insertions_and_removals(uint64_t seed, Spread spread) {
  const rcu::ReaderScope reader;
  Model<Bits> model(seed, spread);
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 150; ++i) model.insert();
    for (int i = 0; i < (round % 5 == 4 ? 500 : 40); ++i) model.remove();
    ASSERT_NO_FATAL_FAILURE(model.check());
  }
  while (!model.prefixes.empty()) model.remove();
  EXPECT_TRUE(model.index.empty());
  EXPECT_EQ(model.index.memory_bytes(), 0u);
  EXPECT_EQ(model.lookup(0).second, 0u);
  // Not after every removal of many, when there are only narrow nodes.
  EXPECT_EQ(model.waited > 0, spread == Spread::dense);
}

template <typename Bits>
void check_ten_times(Spread spread) {
  for (uint64_t seed = 1; seed <= 10; ++seed)
    ASSERT_NO_FATAL_FAILURE(check_insertions_and_removals<Bits>(seed, spread));
}

TEST(PrefixIndexTest, AgreesWithLinearSearchForIpv4) { check_ten_times<uint32_t>(Spread::crowded); }
TEST(PrefixIndexTest, AgreesWithLinearSearchForIpv6) { check_ten_times<Uint128>(Spread::crowded); }
TEST(PrefixIndexTest, AgreesWithLinearSearchForIpv4WithWideNodes) { check_ten_times<uint32_t>(Spread::dense); }
TEST(PrefixIndexTest, AgreesWithLinearSearchForIpv6WithWideNodes) { check_ten_times<Uint128>(Spread::dense); }

// That a value differs from all prefixes in every bit is known from its first one.
TEST(PrefixIndexTest, TheFirstBitDecidesWhereAllDiffer) {
  PrefixIndex<uint32_t> index;
  for (unsigned length = 1; length <= 7; ++length) {
    index.insert(0, length, length);
    PrefixIndex<uint32_t>::Lookup other(index, ~uint32_t{0}), same(index, 0);
    for (auto* lookup : {&other, &same}) {
      while (lookup->walk()) {
      }
    }
    EXPECT_EQ(other.search(), 1u) << length;
    EXPECT_EQ(same.search(), length);
    Numbers numbers{};
    other.finish(numbers);
    EXPECT_EQ(numbers, Numbers{}) << length;
    size_t found = 0;
    same.finish(numbers);
    for (uint32_t subtable = 0; subtable < 64; ++subtable) found += numbers[0] >> subtable & 1;
    EXPECT_EQ(found, length);
  }
}

bool finds(const PrefixIndex<uint32_t>& index, const Prefix<uint32_t>& prefix) {
  PrefixIndex<uint32_t>::Lookup lookup(index, prefix.value);
  while (lookup.walk()) {
  }
  const unsigned decisive = lookup.search();
  Numbers numbers{};
  lookup.finish(numbers);
  return decisive >= prefix.length && (numbers[prefix.subtable / 64] >> (prefix.subtable % 64) & 1) != 0;
}

// Memory follows the prefixes, down too: nodes that are nearly empty have no room for many.
TEST(PrefixIndexTest, WideNodesBecomeNarrowAgain) {
  constexpr uint32_t kPrefixes = 256, kLeft = 16;
  constexpr size_t kWideNode = size_t{16} * 32 * 16;
  const auto prefix = [](uint32_t i) { return Prefix<uint32_t>{i << 24, 32, i % 100}; };
  const rcu::ReaderScope reader;
  PrefixIndex<uint32_t> index(0);
  for (uint32_t i = 0; i < kPrefixes; ++i) index.insert(prefix(i).value, 32, prefix(i).subtable);
  EXPECT_GE(index.memory_bytes(), kWideNode);
  for (uint32_t i = kLeft; i < kPrefixes; ++i) index.remove(prefix(i).value, 32, prefix(i).subtable);
  EXPECT_LT(index.memory_bytes(), kWideNode / 8);
  for (uint32_t i = 0; i < kLeft; ++i) EXPECT_TRUE(finds(index, prefix(i)));
  for (uint32_t i = 0; i < kLeft; ++i) index.remove(prefix(i).value, 32, prefix(i).subtable);
  EXPECT_EQ(index.memory_bytes(), 0u);
}

// Prefixes that take the place of others find room in the wide nodes. Nobody reads, so what is retired is gone at once.
TEST(PrefixIndexTest, WideNodesStayInUseWhilePrefixesComeAndGo) {
  constexpr size_t kPrefixes = 4000, kRounds = 8;
  std::mt19937_64 random(3);
  std::vector<Prefix<uint32_t>> prefixes;
  PrefixIndex<uint32_t> index(0);
  const auto insert = [&](Prefix<uint32_t>& prefix) {
    prefix = {static_cast<uint32_t>(random()), 32, static_cast<uint32_t>(random() % kSubtables)};
    index.insert(prefix.value, 32, prefix.subtable);
  };
  for (size_t i = 0; i < kPrefixes; ++i) insert(prefixes.emplace_back());
  const size_t fresh = index.memory_bytes();
  for (size_t i = 0; i < kRounds * kPrefixes; ++i) {
    Prefix<uint32_t>& prefix = prefixes[random() % kPrefixes];
    index.remove(prefix.value, 32, prefix.subtable);
    insert(prefix);
  }
  EXPECT_LT(index.memory_bytes(), fresh + fresh / 4);
  EXPECT_TRUE(std::all_of(prefixes.begin(), prefixes.end(), [&](const auto& prefix) { return finds(index, prefix); }));
  for (const Prefix<uint32_t>& prefix : prefixes) index.remove(prefix.value, 32, prefix.subtable);
  EXPECT_EQ(index.memory_bytes(), 0u);
  rcu::barrier();
}

// Buckets grow and burst, and nodes get their first short prefixes, under a reader that wants what was there before;
// then most prefixes go, under a reader that wants the others.
void check_readers(size_t large) {
  constexpr size_t kStaysOneIn = 8;
  std::mt19937_64 random(1);
  std::vector<Prefix<uint32_t>> prefixes;
  for (uint32_t i = 0; i < 20'000; ++i) {
    const auto length = static_cast<unsigned>(i % 3 == 0 ? 1 + random() % 20 : 21 + random() % 12);
    prefixes.push_back(
        {static_cast<uint32_t>(random()) >> (random() % 2 * 8), length, static_cast<uint32_t>(random() % kSubtables)});
  }
  PrefixIndex<uint32_t> index(large);
  std::atomic<size_t> inserted{0};
  std::atomic<bool> all_seen{false}, done{false};
  size_t missed = 0;
  std::thread reader([&] {
    const rcu::ThreadRegistration registration;
    std::mt19937_64 choose(2);
    const auto look_for = [&](size_t i) { missed += !finds(index, prefixes[i]); };
    for (size_t n = 0; n < prefixes.size();) {
      n = inserted.load(std::memory_order_acquire);
      rcu::quiescent();
      if (n == 0) continue;
      look_for(n - 1);  // the latest as well as any
      look_for(choose() % n);
    }
    all_seen.store(true, std::memory_order_release);
    while (!done.load(std::memory_order_acquire)) {
      look_for(choose() % (prefixes.size() / kStaysOneIn) * kStaysOneIn);
      rcu::quiescent();
    }
  });
  for (size_t i = 0; i < prefixes.size(); ++i) {
    index.insert(prefixes[i].value, prefixes[i].length, prefixes[i].subtable);
    inserted.store(i + 1, std::memory_order_release);
  }
  while (!all_seen.load(std::memory_order_acquire)) std::this_thread::yield();
  for (size_t i = 0; i < prefixes.size(); ++i) {
    if (i % kStaysOneIn != 0) index.remove(prefixes[i].value, prefixes[i].length, prefixes[i].subtable);
  }
  done.store(true, std::memory_order_release);
  reader.join();
  EXPECT_EQ(missed, 0u);
  rcu::barrier();
}

TEST(PrefixIndexTest, ReadersSeeWhatWasInsertedBefore) { check_readers(PrefixIndex<uint32_t>::kLarge); }
TEST(PrefixIndexTest, ReadersSeeWhatWasInsertedBeforeWhileNodesWiden) { check_readers(0); }

}  // namespace
}  // namespace vswitch
