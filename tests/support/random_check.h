// check_random: a RapidCheck property over whatever a test makes of a random number generator, twenty times per seed,
// so that a run sees a few thousand cases. A failure names the seed.
#pragma once

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <random>

namespace vswitch {

template <typename Property>
void check_random(Property&& property) {
  ASSERT_TRUE(rc::check([&property](uint32_t seed) {
    std::mt19937 rng(seed);
    for (int i = 0; i < 20; ++i) property(rng);
  }));
}

}  // namespace vswitch
