#include "datapath/base/status.h"

#include <gtest/gtest.h>

#include <memory>

namespace vswitch {
namespace {

Result<int> half(int n) {
  if (n % 2 != 0) return invalid_argument("odd", "n");
  return n / 2;
}

Status quarter(int n, int* out) {
  const Result<int> once = half(n);
  VSWITCH_RETURN_IF_ERROR(once.status());
  const Result<int> twice = half(*once);
  VSWITCH_RETURN_IF_ERROR(twice.status());
  *out = *twice;
  return {};
}

TEST(Status, SaysWhatAndWhere) {
  const Status status = not_found("no bridge br7", "bridge");
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.code(), StatusCode::not_found);
  EXPECT_EQ(status.field(), "bridge");
  EXPECT_EQ(status.with_prefix("flows.txt:3").message(), "flows.txt:3: no bridge br7");
  EXPECT_EQ(status.with_prefix("x").field(), "bridge");
  EXPECT_TRUE(Status().with_prefix("x").ok());
}

TEST(Result, HoldsAValueOrTheReason) {
  EXPECT_EQ(*half(4), 2);
  EXPECT_TRUE(half(4).status().ok());
  EXPECT_EQ(half(3).status(), invalid_argument("odd", "n"));
  int out = 0;
  EXPECT_TRUE(quarter(8, &out).ok());
  EXPECT_EQ(out, 2);
  EXPECT_EQ(quarter(6, &out).message(), "odd");
}

TEST(Result, HandsOnWhatCannotBeCopied) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(7);
  const std::unique_ptr<int> value = *std::move(result);
  EXPECT_EQ(*value, 7);
}

}  // namespace
}  // namespace vswitch
