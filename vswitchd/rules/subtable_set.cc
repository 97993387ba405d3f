#include "vswitchd/rules/subtable_set.h"

#include <algorithm>
#include <memory>
#include <new>

#include "datapath/base/rcu.h"

namespace vswitch {
namespace {

constexpr uint32_t kLongList = 16;      // a map where there are so many numbers,
constexpr uint32_t kMapPerMember = 32;  // and it has at most so many places for each

// From here on a count stands still: the number stays in the set for good, which costs time but is never wrong.
// PrefixIndex counts no further either.
constexpr uint32_t kMaxRules = (uint32_t{1} << 24) - 1;

}  // namespace

// Two forms: a list, searched one by one, or, where that would be long, a count for every number below `capacity` with
// a bit map for readers.
struct alignas(8) SubtableSet::Many {
  struct Item {
    uint32_t number;              // constant once published
    std::atomic<uint32_t> rules;  // 0: not in the set
  };

  static Many* make_list(uint32_t capacity) {
    void* memory = ::operator new(sizeof(Many) + capacity * sizeof(Item));
    return new (memory) Many{{0}, capacity, false};
  }
  static Many* make_map(uint32_t capacity) {
    static_assert(sizeof(Many) % alignof(uint64_t) == 0);
    void* memory = ::operator new(map_bytes(capacity));
    Many* made = new (memory) Many{{0}, capacity, true};
    std::uninitialized_value_construct_n(made->words(), capacity / 64);
    std::uninitialized_value_construct_n(made->counts(), capacity);
    return made;
  }
  static void free(Many* many) { ::operator delete(many); }
  static size_t map_bytes(uint32_t capacity) { return sizeof(Many) + capacity / 8 + capacity * sizeof(uint32_t); }
  size_t bytes() const { return is_map ? map_bytes(capacity) : sizeof(Many) + capacity * sizeof(Item); }

  Item* items() { return reinterpret_cast<Item*>(this + 1); }
  const Item* items() const { return reinterpret_cast<const Item*>(this + 1); }
  std::atomic<uint64_t>* words() { return reinterpret_cast<std::atomic<uint64_t>*>(this + 1); }
  const std::atomic<uint64_t>* words() const { return reinterpret_cast<const std::atomic<uint64_t>*>(this + 1); }
  std::atomic<uint32_t>* counts() { return reinterpret_cast<std::atomic<uint32_t>*>(words() + capacity / 64); }

  // Calls visit(number, rules) for those that are in the set.
  template <typename Visit>
  void for_each(Visit&& visit) {
    const uint32_t n = is_map ? capacity : size.load(std::memory_order_relaxed);
    for (uint32_t i = 0; i < n; ++i) {
      const auto& rules = is_map ? counts()[i] : items()[i].rules;
      const uint32_t count = rules.load(std::memory_order_relaxed);
      if (count != 0) visit(is_map ? i : items()[i].number, count);
    }
  }
  // Null: it has no place here yet.
  std::atomic<uint32_t>* count_of(uint32_t number) {
    if (is_map) return number < capacity ? &counts()[number] : nullptr;
    const uint32_t n = size.load(std::memory_order_relaxed);
    for (uint32_t i = 0; i < n; ++i) {
      if (items()[i].number == number) return &items()[i].rules;
    }
    return nullptr;
  }
  bool has_room_for(uint32_t number) const {
    return is_map ? number < capacity : size.load(std::memory_order_relaxed) < capacity;
  }
  void set(uint32_t number, uint32_t rules) {
    if (std::atomic<uint32_t>* count = count_of(number)) {
      count->store(rules, std::memory_order_relaxed);
    } else {
      const uint32_t n = size.load(std::memory_order_relaxed);
      new (&items()[n]) Item{number, {rules}};
      size.store(n + 1, std::memory_order_release);
    }
    if (!is_map) return;
    const uint64_t bit = uint64_t{1} << (number % 64), word = words()[number / 64].load(std::memory_order_relaxed);
    words()[number / 64].store(rules != 0 ? word | bit : word & ~bit, std::memory_order_release);
  }

  std::atomic<uint32_t> size;  // of the list
  uint32_t capacity;
  bool is_map;
};

void SubtableSet::or_many_into(uintptr_t word, std::span<uint64_t> bits) {
  if (word == 0) return;
  const Many& set = *many(word);
  if (set.is_map) {
    const size_t n = std::min<size_t>(set.capacity / 64, bits.size());
    for (size_t i = 0; i < n; ++i) bits[i] |= set.words()[i].load(std::memory_order_acquire);
    return;
  }
  const uint32_t n = set.size.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < n; ++i) {
    const Many::Item& item = set.items()[i];
    const uint64_t present = item.rules.load(std::memory_order_relaxed) != 0;
    if (item.number / 64 < bits.size()) bits[item.number / 64] |= present << (item.number % 64);
  }
}

// A copy with room for `number` too.
SubtableSet::Many* SubtableSet::grow(Many& old, uint32_t number) {
  uint32_t live = 0, highest = number;
  old.for_each([&](uint32_t n, uint32_t) {
    ++live;
    highest = std::max(highest, n);
  });
  const bool as_map = live >= kLongList && live >= highest / kMapPerMember;
  Many* made = as_map ? Many::make_map((highest + highest / 2) / 64 * 64 + 64)
                      : Many::make_list(live < old.capacity ? live + 1 : 2 * live);
  old.for_each([made](uint32_t n, uint32_t rules) { made->set(n, rules); });
  return made;
}

// A rule fits in if both numbers do.
uintptr_t SubtableSet::word_for(uint32_t number, const Rule* rule) {
  const auto pointer = reinterpret_cast<uintptr_t>(rule);
  const bool fits = pointer != 0 && pointer >> kPointerBits == 0 && number >> kNumberBits == 0;
  return fits ? uintptr_t{number} << kPointerBits | pointer | kRule : uintptr_t{number} << kKindBits | kAlone;
}

// Three counted numbers in a word, of which this is one. 0 if it does not fit.
uintptr_t SubtableSet::few_from(uint32_t number, uint32_t rules) {
  if (number >> kNumberBits != 0 || rules > kMaxCount) return 0;
  return (uintptr_t{number} << kCountBits | rules) << kKindBits | kFew;
}

// `word` with one rule more or less in subtable `number`. 0 if there is no room.
uintptr_t SubtableSet::few_with(uintptr_t word, uint32_t number, int change) {
  constexpr unsigned kPlace = kNumberBits + kCountBits;
  unsigned vacant = 0;  // the shift of a place without rules
  for (unsigned shift = kKindBits; shift < kKindBits + kFewNumbers * kPlace; shift += kPlace) {
    const auto count = static_cast<uint32_t>(word >> shift & kMaxCount);
    const auto there = static_cast<uint32_t>(word >> (shift + kCountBits) & ((1u << kNumberBits) - 1));
    if (count == 0) {
      if (vacant == 0) vacant = shift;
    } else if (there == number) {
      if (change < 0) return word - (uintptr_t{1} << shift);
      return count == kMaxCount ? 0 : word + (uintptr_t{1} << shift);
    }
  }
  if (change < 0) return word;
  if (vacant == 0 || number >> kNumberBits != 0) return 0;
  const uintptr_t place = (uintptr_t{1} << kPlace) - 1;
  return (word & ~(place << vacant)) | (uintptr_t{number} << kCountBits | 1) << vacant;
}

// A list of what a word without pointer to one says. `rules`: how many those are, if it has one number.
SubtableSet::Many* SubtableSet::many_from(uintptr_t word, uint32_t rules) {
  Many* list = Many::make_list(2 * kFewNumbers);
  if (has_one(word)) {
    list->set(number_in(word), rules);
    return list;
  }
  for (word >>= kKindBits; word != 0; word >>= kNumberBits + kCountBits) {
    const auto count = static_cast<uint32_t>(word & kMaxCount);
    if (count != 0) list->set(static_cast<uint32_t>(word >> kCountBits & ((1u << kNumberBits) - 1)), count);
  }
  return list;
}

void SubtableSet::add(uint32_t number, uint32_t rules_before, const Rule* rule) {
  const uintptr_t word = word_.load(std::memory_order_relaxed);
  if (word == 0) return word_.store(word_for(number, rule), std::memory_order_release);
  if (has_one(word) && number_in(word) == number) {
    return word_.store(word_for(number, nullptr), std::memory_order_release);
  }
  if (kind_of(word) == kMany) return add_to_many(number);
  const uintptr_t few = has_one(word) ? few_from(number_in(word), rules_before) : word;
  if (const uintptr_t more = few == 0 ? 0 : few_with(few, number, 1); more != 0) {
    return word_.store(more, std::memory_order_release);
  }
  Many* list = many_from(word, rules_before);
  const std::atomic<uint32_t>* count = list->count_of(number);
  list->set(number, 1 + (count == nullptr ? 0 : count->load(std::memory_order_relaxed)));
  word_.store(reinterpret_cast<uintptr_t>(list), std::memory_order_release);
}

void SubtableSet::add_to_many(uint32_t number) {
  const uintptr_t word = word_.load(std::memory_order_relaxed);
  Many* set = const_cast<Many*>(many(word));
  if (const std::atomic<uint32_t>* count = set->count_of(number)) {
    const uint32_t rules = count->load(std::memory_order_relaxed);
    if (rules < kMaxRules) set->set(number, rules + 1);
  } else if (set->has_room_for(number)) {
    set->set(number, 1);
  } else {
    Many* bigger = grow(*set, number);
    bigger->set(number, 1);
    word_.store(reinterpret_cast<uintptr_t>(bigger), std::memory_order_release);
    rcu::retire([set] { Many::free(set); });
  }
}

void SubtableSet::remove(uint32_t number, uint32_t rules_before) {
  const uintptr_t word = word_.load(std::memory_order_relaxed);
  Many* set = kind_of(word) == kMany ? const_cast<Many*>(many(word)) : nullptr;
  if (rules_before <= 1) {
    word_.store(0, std::memory_order_release);
    if (set != nullptr) rcu::retire([set] { Many::free(set); });
    return;
  }
  if (kind_of(word) == kFew) return word_.store(few_with(word, number, -1), std::memory_order_release);
  if (set == nullptr) return;
  const std::atomic<uint32_t>* count = set->count_of(number);
  const uint32_t rules = count == nullptr ? 0 : count->load(std::memory_order_relaxed);
  if (rules > 0 && rules < kMaxRules) set->set(number, rules - 1);
}

void SubtableSet::destroy() {
  const uintptr_t word = word_.load(std::memory_order_relaxed);
  if (kind_of(word) == kMany && word != 0) Many::free(const_cast<Many*>(many(word)));
}

size_t SubtableSet::memory_bytes() const {
  const uintptr_t word = word_.load(std::memory_order_relaxed);
  return kind_of(word) != kMany || word == 0 ? 0 : many(word)->bytes();
}

}  // namespace vswitch
