// Names of threads, as `top -H`, `ps -L` and perf show them: who looks for what takes the time sees which thread it is.
#pragma once

#include <pthread.h>

#include <string>

namespace vswitch {

// Names the calling thread; of a name longer than the 15 characters that the kernel keeps, the rest is not shown.
inline void name_this_thread(std::string name) {
  constexpr size_t kShown = 15;
  if (name.size() > kShown) name.resize(kShown);
  (void)::pthread_setname_np(::pthread_self(), name.c_str());  // fails for long names only
}

}  // namespace vswitch
