// Getting out of the way of who woke this thread.
//
// A scheduler puts a thread that is woken onto another core only if that one looks idle. In a virtual machine a core
// that sleeps looks as if its host had taken it away (Linux: available_idle_cpu()), so the handler thread comes to
// share the core of the forwarding thread that woke it, and they take turns there while the other cores sleep, until
// the scheduler evens that out: milliseconds, in which thousands of flows could be set up.
//
// Thread safety: any thread, for itself.
#pragma once

#include <sched.h>
#include <unistd.h>

#include <cstring>

namespace vswitch {

// Moves the calling thread to another of the cores that it may use, where there is one. Which it may use stays as it
// was; all that there are means all that there will be, as for a thread that nobody has restricted. Takes some 50 us.
inline void leave_core(int core) {
  cpu_set_t allowed;
  if (core < 0 || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t others = allowed;
  CPU_CLR(static_cast<size_t>(core), &others);
  if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof others, &others) != 0) return;
  if (CPU_COUNT(&allowed) == sysconf(_SC_NPROCESSORS_ONLN)) std::memset(&allowed, 0xff, sizeof allowed);
  if (sched_setaffinity(0, sizeof allowed, &allowed) == 0) return;
  std::memset(&allowed, 0xff, sizeof allowed);  // it may use none of them any more
  (void)sched_setaffinity(0, sizeof allowed, &allowed);
}

}  // namespace vswitch
