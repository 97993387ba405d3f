#include "vswitchd/rpc/rule_stream.h"

#include <fmt/format.h>

#include "vswitchd/rpc/proto_convert_rule.h"

namespace vswitch {
namespace {

constexpr uint64_t kTyped = uint64_t{1} << 63;

std::string_view without_comment(std::string_view line) {
  line = line.substr(0, line.find('#'));
  size_t first = line.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return line.substr(first, line.find_last_not_of(" \t\r") - first + 1);
}

}  // namespace

void RuleStream::fail(Status status, std::optional<size_t> mod, std::optional<uint64_t> line) {
  if (failures_.empty()) {
    mods_ = {};
    origins_ = {};
    provision_.reset();
  }
  if (failures_.size() < kMaxErrors) failures_.emplace_back(std::move(status), std::nullopt, mod, line);
}

Failure RuleStream::failure_of(size_t index, Status status) const {
  if (index >= origins_.size()) return Failure(std::move(status));
  uint64_t origin = origins_[index];
  if ((origin & kTyped) != 0) return Failure(std::move(status), std::nullopt, origin & ~kTyped);
  return Failure(std::move(status), std::nullopt, std::nullopt, origin);
}

void RuleStream::keep(RuleMod mod, uint64_t origin) {
  if (mod.spec.actions != nullptr) mod.spec.actions = actions_.intern(std::move(mod.spec.actions));
  if (mod.command == RuleCommand::add) provision_->expect_one();
  mods_.push_back(std::move(mod));
  origins_.push_back(origin);
}

void RuleStream::add_line(std::string_view line) {
  ++line_;
  std::string_view text = without_comment(line);
  if (text.empty()) return;
  Result<RuleMod> mod = names_.parse([&](const FlowNames* names) { return names_.parser().parse(text, names); });
  if (!mod.ok()) {
    fail(mod.status(), std::nullopt, line_);
  } else if (ok()) {
    keep(*std::move(mod), line_);
  }
}

bool RuleStream::add_text(std::string_view chunk) {
  for (size_t end; (end = chunk.find('\n')) != std::string_view::npos; chunk.remove_prefix(end + 1)) {
    if (rest_.empty()) {
      add_line(chunk.substr(0, end));
    } else {
      rest_.append(chunk.substr(0, end));
      std::string line = std::move(rest_);
      rest_.clear();
      add_line(line);
    }
  }
  rest_.append(chunk);
  if (rest_.size() > kMaxLine) {
    fail(invalid_argument(fmt::format("a line may have {} bytes at most", kMaxLine), "text"), std::nullopt, line_ + 1);
    return false;
  }
  return failures_.size() < kMaxErrors;
}

bool RuleStream::add_mod(const v1::RuleMod& mod) {
  uint64_t index = typed_++;
  Result<RuleMod> parsed =
      names_.parse([&](const FlowNames* names) { return rule_mod_from_proto(mod, names, names_.parser()); });
  if (!parsed.ok()) {
    fail(parsed.status(), index, std::nullopt);
  } else if (ok()) {
    keep(*std::move(parsed), kTyped | index);
  }
  return failures_.size() < kMaxErrors;
}

bool RuleStream::finish() {
  if (!rest_.empty()) {
    std::string line = std::move(rest_);
    rest_.clear();
    add_line(line);
  }
  return ok();
}

}  // namespace vswitch
