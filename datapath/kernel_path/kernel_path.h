// KernelPath: connections that the kernel forwards from one device to another on the datapath's behalf, without waking
// a thread of ours (docs/kernel-path.md).
//
// It knows devices, by hooks on the packet sockets of their ports, and connections; it knows nothing of flows or ports:
// which connections are forwarded, and who is told what they counted, is up to its user (core/kernel_connections.h).
//
// Life of a connection: prepare() -> add() (pending: the kernel knows it, but does not forward yet) -> activate() ->
// stop(), by its user, or because one of the two hooks closed or changed -> erase() -> wait_for_running() -> counts()
// are final -> free(). What is stopped, or was never activated, goes by the packet socket, as without a kernel path.
//
// Thread safety: any thread, except that one connection is added, erased and freed by one thread at a time. No function
// is for the packet path, but activate(), which is one atomic operation.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "datapath/base/clock.h"
#include "datapath/base/mutex.h"
#include "datapath/base/status.h"
#include "datapath/kernel_path/connection_key.h"
#include "datapath/kernel_path/encapsulation.h"
#include "datapath/kernel_path/programs.h"

namespace vswitch {

class KernelPath {
 public:
  // Identifies a hook for as long as the daemon lives; 0: none.
  using HookId = uint64_t;
  static constexpr size_t kMaxConnections = KERNEL_PATH_CONNECTIONS;

  // The kernel path of one device: held by who owns the packet socket, and not longer than that.
  class Hook {
   public:
    ~Hook() { close(); }
    Hook(const Hook&) = delete;
    Hook& operator=(const Hook&) = delete;
    // 0 while it does not work (switched off, refused by the kernel, closed). One that works costs nothing before the
    // first connection that comes in by it.
    HookId id() const { return working_.load(std::memory_order_acquire) ? id_ : 0; }
    // Limits what is sent to the device; 0: no limit. Connections to it are stopped, since they were made for another.
    void set_mtu(uint32_t mtu);
    // Stops all connections from and to the device before it returns. The socket is still there.
    void close();
    std::string problem() const;  // "" or why this device, in particular, has no kernel path

   private:
    friend class KernelPath;
    Hook(KernelPath& path, HookId id) : path_(path), id_(id) {}
    KernelPath& path_;
    const HookId id_;
    std::atomic<bool> working_{false};
  };

  // `on_news` is called, perhaps under the lock, when there is something for clear_up() to do, or for who asks
  // take_ways_changed().
  explicit KernelPath(std::function<void()> on_news = [] {}) : on_news_(std::move(on_news)) {}
  ~KernelPath() = default;  // REQUIRES: no hook is left
  KernelPath(const KernelPath&) = delete;
  KernelPath& operator=(const KernelPath&) = delete;

  // Off at first. When false returns, the kernel forwards nothing.
  void set_enabled(bool enabled);
  // Never null; works now or later (id()). `socket` is a packet socket bound, or to be bound, to the device.
  std::unique_ptr<Hook> hook(int socket, uint32_t ifindex, uint32_t mtu);
  // The same for a tunnel, which is a way out only: what goes there is encapsulated.
  std::unique_ptr<Hook> tunnel_hook();

  // Whether there is anything to forward between: two hooks that work. For the packet path.
  bool useful() const { return working_.load(std::memory_order_relaxed) >= 2; }
  // "" or why nothing is forwarded.
  std::string off_because() const;
  size_t working_hooks() const { return working_.load(std::memory_order_relaxed); }
  // Takes a hook out of service for good: what it was to send, another program of the host took.
  void give_up(HookId hook, std::string reason);

  // Takes programs off devices that have no need of them any more (they have no effect since then): the kernel takes
  // its time for that.
  void clear_up();

  // Outer packets may have to go another way now: routes, addresses or devices have changed.
  void ways_changed() {
    ways_changed_.store(true);
    on_news_();
  }
  bool take_ways_changed() { return ways_changed_.exchange(false); }

  // ---- connections
  struct Use {  // of an element of the table
    uint32_t element;
    uint32_t state;
  };
  // To be called before a connection that comes in by this hook is added. The first call takes some milliseconds, or
  // as long as the kernel is busy with its devices.
  Status prepare(HookId in);
  // Fails if either hook does not work (any more) or is not prepared, the table is full, or the connection is there
  // already. `key`'s in_ifindex is filled in. `encapsulation`: not null if, and only if, `out` is the hook of a tunnel.
  Result<Use> add(ConnectionKey key, HookId in, HookId out, const Encapsulation* encapsulation = nullptr);
  // No effect if it has been stopped since.
  void activate(const Use& use);
  // When it returns, no frame that is not on its way yet is forwarded.
  void stop(uint32_t element);
  bool stopped(uint32_t element) const;
  struct Counts {
    uint64_t packets = 0, bytes = 0;                               // sent; a super-frame counts once
    uint64_t full = 0, failed = 0, overruled = 0, lost_bytes = 0;  // not sent: see kernel_connection
    uint32_t tcp_flags = 0;
    bool operator==(const Counts&) const = default;
  };
  Counts counts(uint32_t element) const;
  // When the last packet of these came, by CLOCK_MONOTONIC; 0: none has come.
  Nanoseconds used(uint32_t element) const;
  void erase(uint32_t element);
  void wait_for_running() const { KernelPrograms::wait_for_running(); }
  // REQUIRES: erased, and waited since.
  void free(uint32_t element);

  const KernelPrograms* programs() const { return programs_.get(); }  // tests; null: not loaded

 private:
  struct Device {  // or tunnel
    Hook* hook = nullptr;
    int socket = -1;
    uint32_t ifindex = 0;  // 0: a tunnel
    uint32_t mtu = 0;
    UniqueFd link;
    std::string problem;
    bool working() const { return hook->id() != 0; }
  };
  struct Way {
    HookId in = 0, out = 0;  // 0: the element is free
  };

  std::unique_ptr<Hook> make_hook(Device device);
  void load() REQUIRES(mutex_);
  void start(Device& device) REQUIRES(mutex_);
  void end(HookId id, Device& device) REQUIRES(mutex_);
  Status attach(Device& device) REQUIRES(mutex_);
  bool has_other(const Device& device) const REQUIRES(mutex_);
  void stop_all(HookId id, bool incoming) REQUIRES(mutex_);
  void closed(HookId id);
  std::string problem_of(HookId id) const;
  void mtu_changed(HookId id, uint32_t mtu);
  static void fill_in(kernel_connection& connection, kernel_encapsulation& headers, const Encapsulation& encapsulation);
  kernel_connection& at(uint32_t element) const { return programs_->connections()[element]; }

  std::atomic<uint32_t> working_{0};  // hooks
  std::atomic<bool> ways_changed_{false};
  const std::function<void()> on_news_;
  mutable Mutex mutex_;
  bool enabled_ GUARDED_BY(mutex_) = false;
  std::string load_problem_ GUARDED_BY(mutex_);
  HookId last_id_ GUARDED_BY(mutex_) = 0;
  std::map<HookId, Device> devices_ GUARDED_BY(mutex_);
  std::unique_ptr<KernelPrograms> programs_;  // set once, under the lock, before the first connection
  std::vector<Way> ways_ GUARDED_BY(mutex_);  // by element
  std::vector<uint32_t> free_ GUARDED_BY(mutex_);
  std::vector<UniqueFd> leftover_ GUARDED_BY(mutex_);  // links
  uint32_t uses_ GUARDED_BY(mutex_) = 0;               // of elements, so far
};

}  // namespace vswitch
