// FakeLinkMonitor: a link monitor whose links, addresses and routes are what the test says. Nothing is asked of the
// kernel.
//
// Thread-safe like the real one; callbacks run on the thread that changes something.
#pragma once

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "datapath/base/mutex.h"
#include "datapath/vport/link_monitor.h"

namespace vswitch::test {

class FakeLinkMonitor final : public LinkMonitor {
 public:
  // ---- what the test sets
  void put_link(const LinkInfo& link) {
    MutexLock lock(mutex_);
    links_[link.name] = link;
  }
  void add_local_address(const std::string& address) {
    edit([&] { local_.insert(address); });
  }
  void remove_local_address(const std::string& address) {
    edit([&] { local_.erase(address); });
  }
  void put_route(const std::string& destination, const RouteInfo& route) {
    edit([&] { routes_[destination] = route; });
  }
  void remove_route(const std::string& destination) {
    edit([&] { routes_.erase(destination); });
  }
  size_t route_watchers() const {
    MutexLock lock(mutex_);
    return watchers_.size();
  }

  // ---- LinkMonitor
  std::optional<LinkInfo> find(std::string_view name) const override {
    MutexLock lock(mutex_);
    const auto it = links_.find(std::string(name));
    return it == links_.end() ? std::nullopt : std::optional(it->second);
  }
  std::optional<LinkInfo> find(uint32_t ifindex) const override {
    MutexLock lock(mutex_);
    for (const auto& [name, link] : links_) {
      if (link.ifindex == ifindex) return link;
    }
    return std::nullopt;
  }
  Result<RouteInfo> route_to(const IpAddress& destination, const IpAddress&, uint32_t) const override {
    MutexLock lock(mutex_);
    const auto it = routes_.find(destination.to_string());
    if (it == routes_.end()) return not_found("no route to " + destination.to_string());
    return it->second;
  }
  bool is_local_address(const IpAddress& address) const override {
    MutexLock lock(mutex_);
    return local_.contains(address.to_string());
  }
  Status set_up(std::string_view, bool) override { return unimplemented("the fake changes no links"); }
  Status set_mtu(std::string_view, uint32_t) override { return unimplemented("the fake changes no links"); }
  Status set_mac(std::string_view, const MacAddress&) override { return unimplemented("the fake changes no links"); }
  std::shared_ptr<void> watch_link(std::string, LinkCallback) override { return nullptr; }
  std::shared_ptr<void> watch_routes(RouteCallback callback) override {
    auto watcher = std::make_shared<RouteCallback>(std::move(callback));
    MutexLock lock(mutex_);
    watchers_.push_back(watcher);
    RouteCallback* raw = watcher.get();
    return {raw, [this, watcher](void*) {
              MutexLock relock(mutex_);
              std::erase(watchers_, watcher);
            }};
  }

 private:
  template <typename Edit>
  void edit(Edit&& change) {
    std::vector<std::shared_ptr<RouteCallback>> watchers;
    {
      MutexLock lock(mutex_);
      change();
      watchers = watchers_;
    }
    for (const auto& watcher : watchers) (*watcher)();
  }

  mutable Mutex mutex_;
  std::map<std::string, LinkInfo> links_;
  std::set<std::string> local_;
  std::map<std::string, RouteInfo> routes_;
  std::vector<std::shared_ptr<RouteCallback>> watchers_;
};

}  // namespace vswitch::test
