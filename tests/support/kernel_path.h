// What a test of the kernel path does where the kernel or the process's privileges do not allow it: it is skipped. That
// the kernel refuses our programs for another reason is a failure of ours.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace vswitch::test {

inline bool has_no_kernel_path(std::string_view why_off) {
  return why_off.find("no TCX") != why_off.npos || why_off.find("CAP_BPF") != why_off.npos;
}

}  // namespace vswitch::test

// `why_off`: "" or why the kernel path is off.
#define VSWITCH_REQUIRE_KERNEL_PATH(why_off)                                           \
  do {                                                                                 \
    const std::string vswitch_why = (why_off);                                         \
    if (::vswitch::test::has_no_kernel_path(vswitch_why)) GTEST_SKIP() << vswitch_why; \
    ASSERT_EQ(vswitch_why, "");                                                        \
  } while (false)
