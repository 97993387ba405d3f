#include "datapath/base/thread_slice.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace vswitch {
namespace {

// struct sched_attr of sched_setattr(2), its first version; glibc 2.36 has no declaration.
struct SchedulingAttributes {
  uint32_t size = 0;
  uint32_t policy = 0;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime = 0;  // nanoseconds; of an ordinary thread: its slice, 0 where the kernel knows none
  uint64_t deadline = 0;
  uint64_t period = 0;
};

}  // namespace

void lengthen_thread_slice() {
  SchedulingAttributes attributes;
  if (::syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0 || attributes.runtime == 0) return;
  attributes.runtime *= 2;
  (void)::syscall(SYS_sched_setattr, 0, &attributes, 0);
}

}  // namespace vswitch
