#include "vswitchd/rules/subtable_set.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <random>

#include "datapath/base/rcu.h"

namespace vswitch {
namespace {

using Numbers = std::array<uint64_t, 2048>;  // up to 131,071

Numbers numbers_of(const SubtableSet& set) {
  Numbers numbers{};
  SubtableSet::or_into(set.load(), numbers);
  return numbers;
}

// Numbers from the whole range that the forms of a set are made for, with counts.
class Model {
 public:
  explicit Model(uint64_t seed) : random_(seed) {}
  ~Model() { set.destroy(); }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  uint32_t number() {
    constexpr std::array<uint32_t, 4> kUniverse{2, 5, 90, 131'072};
    return static_cast<uint32_t>(random_() % kUniverse[random_() % 4]);
  }
  void add(uint32_t number) {
    set.add(number, rules++);
    ++counts[number];
  }
  void remove_any() {
    auto at = counts.begin();
    std::advance(at, static_cast<std::ptrdiff_t>(random_() % counts.size()));
    set.remove(at->first, rules--);
    if (--at->second == 0) counts.erase(at);
  }
  // A set may hold numbers that are gone while there are others, but none that never was.
  void check() const {
    const Numbers numbers = numbers_of(set);
    for (const auto& [number, count] : counts) ASSERT_TRUE(numbers[number / 64] >> number % 64 & 1) << number;
  }

  SubtableSet set;
  std::map<uint32_t, uint32_t> counts;
  uint32_t rules = 0;

 private:
  std::mt19937_64 random_;
};

TEST(SubtableSetTest, HoldsWhatWasAddedInEveryForm) {
  const rcu::ReaderScope reader;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Model model(seed);
    for (uint32_t i = 0; i < 5 + seed % 100; ++i) {
      model.add(model.number());
      if (i % 3 == 2) model.remove_any();
      ASSERT_NO_FATAL_FAILURE(model.check());
    }
    while (model.rules > 0) {
      model.remove_any();
      ASSERT_NO_FATAL_FAILURE(model.check());
    }
    EXPECT_EQ(numbers_of(model.set), Numbers{});
    EXPECT_EQ(model.set.memory_bytes(), 0u);
  }
}

TEST(SubtableSetTest, FewNumbersTakeNoMemoryAndGoOneByOne) {
  SubtableSet set;
  for (uint32_t i = 0; i < 3; ++i) set.add(100 * i, i);
  set.add(200, 3);
  EXPECT_EQ(set.memory_bytes(), 0u);
  set.remove(100, 4);
  set.remove(200, 3);
  Numbers expected{};
  expected[0] = 1;
  expected[200 / 64] = uint64_t{1} << 200 % 64;
  EXPECT_EQ(numbers_of(set), expected);
  set.remove(200, 2);
  expected[200 / 64] = 0;
  EXPECT_EQ(numbers_of(set), expected);
  set.remove(0, 1);
  EXPECT_EQ(numbers_of(set), Numbers{});
}

TEST(SubtableSetTest, KnowsTheOnlyRule) {
  RuleSpec spec;
  spec.actions = std::make_shared<RuleActionList>();
  Rule* rule = Rule::make(1, spec, 1s);
  for (const uint32_t number : {0u, 7u, 0xffffu}) {
    SubtableSet set;
    set.add(number, 0, rule);
    EXPECT_EQ(SubtableSet::only_rule(set.load()), rule);
    EXPECT_EQ(SubtableSet::number_in(set.load()), number);
    Numbers expected{};
    expected[number / 64] = uint64_t{1} << number % 64;
    EXPECT_EQ(numbers_of(set), expected);
    set.add(number, 1, rule);
    EXPECT_EQ(SubtableSet::only_rule(set.load()), nullptr);
    EXPECT_EQ(numbers_of(set), expected);
    set.remove(number, 2);
    EXPECT_EQ(numbers_of(set), expected);
    set.remove(number, 1);
    EXPECT_EQ(numbers_of(set), Numbers{});
  }
  SubtableSet set;
  set.add(0x10000, 0, rule);  // does not fit beside a pointer
  EXPECT_EQ(SubtableSet::only_rule(set.load()), nullptr);
  rule->release();
}

}  // namespace
}  // namespace vswitch
