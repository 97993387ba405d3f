// Failure: a Status with the place in the request that it is about. What error.proto's ErrorDetail says, in domain
// terms.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "datapath/base/status.h"

namespace vswitch {

struct Failure {
  Status status;
  std::optional<size_t> operation;  // Apply: index of the operation
  std::optional<size_t> rule_mod;   // index of the change within its operation or stream
  std::optional<uint64_t> line;     // LoadRules: line of the text, from 1

  Failure(Status s) : status(std::move(s)) {}  // NOLINT: implicit on purpose, `return not_found(...);`
  Failure(Status s, std::optional<size_t> op, std::optional<size_t> mod = {}, std::optional<uint64_t> l = {})
      : status(std::move(s)), operation(op), rule_mod(mod), line(l) {}
  bool ok() const { return status.ok(); }
};

}  // namespace vswitch
