#include <map>
#include <utility>

#include "vswitchd/store/store.h"

namespace vswitch {
namespace {

class MemoryStore final : public Store {
 public:
  Status commit(const Batch& batch) override {
    for (const std::string& bridge : batch.delete_rules_of_bridge) {
      std::erase_if(rules_, [&](const auto& rule) { return rule.second.first == bridge; });
    }
    for (const Batch::ObjectName& object : batch.delete_objects) objects_.erase({object.kind, object.name});
    for (const Batch::Object& object : batch.put_objects) objects_[{object.kind, object.name}] = object.value;
    for (Batch::Rule& rule : ahead_) rules_[rule.id] = {std::move(rule.bridge), std::move(rule.value)};
    ahead_.clear();
    for (const uint64_t id : batch.delete_rules) rules_.erase(id);
    for (const Batch::Rule& rule : batch.put_rules) rules_[rule.id] = {rule.bridge, rule.value};
    revision_ = batch.revision;
    return {};
  }

  Status write_ahead(uint64_t id, std::string_view bridge, std::string_view value) override {
    ahead_.push_back({id, std::string(bridge), std::string(value)});
    return {};
  }
  void discard() override { ahead_.clear(); }

  uint64_t revision() const override { return revision_; }

  Status for_each_object(const std::function<Status(const Batch::Object&)>& visit) const override {
    for (const auto& [key, value] : objects_) VSWITCH_RETURN_IF_ERROR(visit({key.first, key.second, value}));
    return {};
  }

  Status for_each_rule(
      const std::function<Status(uint64_t, std::string_view, std::string_view)>& visit) const override {
    for (const auto& [id, rule] : rules_) VSWITCH_RETURN_IF_ERROR(visit(id, rule.first, rule.second));
    return {};
  }

 private:
  std::map<std::pair<std::string, std::string>, std::string> objects_;
  std::map<uint64_t, std::pair<std::string, std::string>> rules_;
  std::vector<Batch::Rule> ahead_;
  uint64_t revision_ = 0;
};

}  // namespace

std::unique_ptr<Store> make_memory_store() { return std::make_unique<MemoryStore>(); }

}  // namespace vswitch
