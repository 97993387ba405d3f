// Store: where the configuration and the rules outlive the daemon. SQLite behind a small interface (etcd is to be a
// second implementation): opaque records in two sets, changed in atomic, durable batches.
//
//   objects  (kind, name) -> bytes      bridges, ports, settings, port numbers: few, small
//   rules    (id) -> bridge, bytes      up to millions
//
// What the bytes mean is the caller's business (vswitchd/control/config_codec.h, vswitchd/openflow/rule_codec.h).
// A commit() that returned ok survives kill -9 and power loss (WAL, synchronous=FULL); one that failed changed nothing.
//
// Thread safety: one thread at a time (the switch's lock, or who holds it).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "datapath/base/status.h"

namespace vswitch {

class Store {
 public:
  struct Batch {
    struct Object {
      std::string kind, name;
      std::string value;
    };
    struct ObjectName {
      std::string kind, name;
    };
    struct Rule {
      uint64_t id;
      std::string bridge;
      std::string value;
    };
    std::vector<Object> put_objects;
    std::vector<ObjectName> delete_objects;
    std::vector<Rule> put_rules;
    std::vector<uint64_t> delete_rules;
    std::vector<std::string> delete_rules_of_bridge;  // all rules of these bridges, before put_rules
    uint64_t revision = 0;                            // stored with the batch
  };

  virtual ~Store() = default;
  virtual Status commit(const Batch& batch) = 0;
  // Writes a rule ahead of the commit() that it belongs to, so that a million rules need not wait for it: they become
  // part of the next batch, as if they stood first in its put_rules, and durable with it or not at all. An error means
  // that this batch cannot be committed any more: discard(). That batch may delete such a rule by its id, but must not
  // have delete_rules_of_bridge.
  virtual Status write_ahead(uint64_t id, std::string_view bridge, std::string_view value) = 0;
  // Forgets what was written ahead since the last commit(). (A commit() that fails does so, too.)
  virtual void discard() = 0;
  virtual uint64_t revision() const = 0;
  virtual Status for_each_object(const std::function<Status(const Batch::Object&)>& visit) const = 0;
  // In order of id.
  virtual Status for_each_rule(
      const std::function<Status(uint64_t id, std::string_view bridge, std::string_view value)>& visit) const = 0;
};

// Opens or creates DIRECTORY/vswitch.db (and the directory). Refuses, leaving everything as it is: a directory that
// cannot be written, a file that is not ours, corrupt, or of a newer schema, or one that another process has open.
Result<std::unique_ptr<Store>> open_sqlite_store(const std::string& directory);
// Keeps nothing beyond its life (tests, --state-dir none).
std::unique_ptr<Store> make_memory_store();

}  // namespace vswitch
