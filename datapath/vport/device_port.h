// DevicePort: a port on a kernel device. What netdev and internal ports have in common: the device may be missing, go
// down, be renamed or deleted at any time, and the port stays and recovers by itself.
//
// How: every change (a notification, a reconfiguration, a descriptor that failed) ends in reconcile(), which looks at
// the device as it is now and opens or closes the descriptor accordingly. Forwarding threads see an immutable DeviceIo
// through an RCU pointer, or none.
//
// Locks: update_mutex_ orders transitions and is held while the kernel is asked; state_mutex_ guards what state()
// shows. Neither is held while the host is called, and neither is ever taken by send() or receive().
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "datapath/base/mutex.h"
#include "datapath/vport/device_io.h"
#include "datapath/vport/link_monitor.h"
#include "datapath/vport/vport.h"

namespace vswitch {

// What differs between kinds of device ports. Used under the port's update_mutex_.
class DeviceDriver {
 public:
  virtual ~DeviceDriver() = default;
  virtual std::string_view type() const = 0;
  // The name of the device that `config` asks for.
  virtual std::string device_name(const VportConfig& config) const = 0;
  // Opens the device; `link` is how it is now (null: not in this namespace). StatusCode::unavailable means that nothing
  // is wrong with the configuration: the device only is not ready (down). `closing`: what this returned before may
  // still be open; once it is closed, the device is opened anew if it could not be now.
  virtual Result<std::unique_ptr<DeviceIo>> open(const std::optional<LinkInfo>& link, bool closing) = 0;
  // Whether `io` still leads to the device as it is now, in the way it would be opened now.
  virtual bool still_good(DeviceIo& io, const std::optional<LinkInfo>& link) = 0;
  // Whether a port with the options of `from` can take those of `to` as it is. REQUIRES: the device stays the same.
  virtual bool takes_in_place(const VportConfig&, const VportConfig&) const { return true; }
};

// Whether the MTU and MAC that `config` asks for can be given to the device, as far as the device tells.
Status check_device_settings(const VportConfig& config, const LinkInfo& link);

class DevicePort final : public Vport {
 public:
  // Opens the device. With `must_work`, fails when it cannot be used; else the port comes up in error.
  static Result<std::unique_ptr<Vport>> create(const VportConfig& config, uint32_t port_no,
                                               VportEnvironment& environment, bool must_work,
                                               std::unique_ptr<DeviceDriver> driver);
  ~DevicePort() override;

  std::string_view type() const override { return type_; }
  void send(ThreadContext& ctx, PacketBatch& batch) override;
  std::vector<std::shared_ptr<RxSource>> sources() override;
  void start_receiving() override;
  VportState state() const override;
  VportStats stats() const override;
  Status reconfigure(const VportConfig& config) override;
  Status set_admin_up(bool up) override;
  void forwarding_threads_changed() override { refresh(); }
  uint64_t kernel_path_hook() const override;
  void count_kernel_path(const KernelPathCounts& counts) override;

  // The device's name.
  const std::string& device() const { return device_; }

 private:
  class Source;
  class FurtherQueue;
  struct Anchor;
  struct Changes;

  DevicePort(const VportConfig& config, uint32_t port_no, VportEnvironment& environment,
             std::unique_ptr<DeviceDriver> driver);

  Status start(bool must_work);
  // Looks at the device and brings the descriptor and the state in line with it; tells the host.
  Status reconcile() EXCLUDES(update_mutex_);
  void refresh() EXCLUDES(update_mutex_);  // reconcile(), where the state is the only one to tell
  void closed() EXCLUDES(update_mutex_);   // what was out of use is closed: looks again
  Status reconcile_locked(Changes& changes) REQUIRES(update_mutex_);
  Status open_device(std::optional<LinkInfo>& link, Changes& changes) REQUIRES(update_mutex_);
  // Gives the device the MTU and MAC that were asked for.
  Status configure_device(const VportConfig& config, const LinkInfo& link);
  bool update_state(const std::optional<LinkInfo>& link, const Status& status) REQUIRES(update_mutex_);
  void tell_host(Changes changes) EXCLUDES(update_mutex_);
  // A descriptor reported that its device is gone; called by forwarding threads, so only leaves a note.
  void note_lost_device();

  const std::string device_;
  const std::string type_;
  VportEnvironment& environment_;
  const std::shared_ptr<Source> source_;
  const std::shared_ptr<Anchor> anchor_;  // how deferred work finds the port, or that it is gone

  Mutex update_mutex_;
  VportConfig config_ GUARDED_BY(update_mutex_);
  bool receiving_ GUARDED_BY(update_mutex_) = false;  // start_receiving() was called
  int closing_ GUARDED_BY(update_mutex_) = 0;         // out of use, and not closed yet
  const std::unique_ptr<DeviceDriver> driver_ PT_GUARDED_BY(update_mutex_);

  mutable Mutex state_mutex_;
  VportState state_ GUARDED_BY(state_mutex_);
  std::vector<std::shared_ptr<RxSource>> queues_ GUARDED_BY(state_mutex_);  // as many as the device ever had

  std::atomic<bool> started_{false};
  std::shared_ptr<void> watch_;  // last: ends first
};

}  // namespace vswitch
