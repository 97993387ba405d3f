// The ways by which packets may find their flows, for tests of what holds for each of them:
//
//   class ATest : public ::testing::TestWithParam<test::Lookup> {...};
//   INSTANTIATE_TEST_SUITE_P(Lookups, ATest, ::testing::ValuesIn(test::kLookups), test::lookup_name);
#pragma once

#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "datapath/core/lookup_options.h"

namespace vswitch::test {

struct Lookup {
  const char* name;
  LookupOptions options;
};
inline std::ostream& operator<<(std::ostream& out, const Lookup& lookup) { return out << lookup.name; }
inline std::string lookup_name(const ::testing::TestParamInfo<Lookup>& info) { return info.param.name; }

// As the end-to-end tests name them (tests/e2e/port_kinds.py).
inline constexpr Lookup kLookups[] = {
    {"all", {}},
    {"no_shortcuts", {.shallow = false, .cache = false}},
    {"cache_only", {.shallow = false}},
    {"shallow_only", {.cache = false}},
    {"one_mask", {.max_masks = 1}},
};
// For what depends on the masks that flows have, and not on how packets find them.
inline constexpr Lookup kMaskLimits[] = {{"all_masks", {}}, {"one_mask", {.max_masks = 1}}};

}  // namespace vswitch::test
