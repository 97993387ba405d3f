// The eBPF programs of the kernel path, loaded, with their maps. The only code that talks to the kernel about them;
// builds without clang or libbpf have programs_absent.cc in its place.
//
// Everything is held by file descriptors, so that the kernel ends it all when the daemon ends, however that happens.
//
// Thread safety: one thread at a time, except for what is said to be for any.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "datapath/base/status.h"
#include "datapath/base/unique_fd.h"
#include "datapath/kernel_path/connection_key.h"

namespace vswitch {

class KernelPrograms {
 public:
  // Fails where the kernel or the process's privileges do not allow it; the message says which.
  static Result<std::unique_ptr<KernelPrograms>> load();
  ~KernelPrograms();
  KernelPrograms(const KernelPrograms&) = delete;
  KernelPrograms& operator=(const KernelPrograms&) = delete;

  // The array that the programs look at, as shared memory. Constant; see kernel_connection for who may write what.
  std::span<kernel_connection> connections() const { return connections_; }
  // The same for what is put in front of the packets of those that are encapsulated.
  std::span<kernel_encapsulation> encapsulations() const { return encapsulations_; }

  // From now on frames with this key are those of the element. Fails if they are those of another.
  Status insert(const ConnectionKey& key, uint32_t element);
  void erase(const ConnectionKey& key);

  // Puts both programs to work: the filter on a packet socket that is bound to the device, the other at the device's
  // ingress for as long as the link that is returned is open. A device takes the program once. Takes milliseconds, and
  // closing the link does, too.
  Result<UniqueFd> attach(int socket, uint32_t ifindex);
  // From now on the other program has nothing to do. To be called before the link is closed.
  void remove_filter(int socket);

  // Returns when no program runs any more that was running at the call: counts of elements that were stopped before are
  // final then. Takes milliseconds. Any thread.
  static void wait_for_running();

  // Tests run them on frames of their own.
  int filter_fd() const;
  int forward_fd() const;

 private:
  struct Object;
  KernelPrograms();
  std::unique_ptr<Object> object_;
  std::span<kernel_connection> connections_;
  std::span<kernel_encapsulation> encapsulations_;
};

}  // namespace vswitch
