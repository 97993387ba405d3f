#include "datapath/base/thread_heap.h"

#include <unistd.h>

#include <array>
#include <cstddef>
#include <memory>
#include <new>

#include "datapath/base/sanitizer.h"

namespace vswitch {
namespace {

// Each smaller than what malloc gives memory of its own from (128 kB).
constexpr size_t kBlock = size_t{64} * 1024, kBlocks = 16;
// Larger than what it keeps for each thread beside the heap, so that it lies behind the blocks.
constexpr size_t kPin = 2048;

}  // namespace

void prepare_thread_heap() {
  if (kSanitized) return;
  // While it is there, what lies before it is not given back to the kernel.
  thread_local std::unique_ptr<volatile std::byte[]> pin;
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::array<std::unique_ptr<volatile std::byte[]>, kBlocks> blocks;
  try {
    for (auto& block : blocks) {
      block.reset(new std::byte[kBlock]);
      for (size_t i = 0; i < kBlock; i += page) block[i] = std::byte{0};
    }
    pin.reset(new std::byte[kPin]);
  } catch (const std::bad_alloc&) {
    // All that is missing is a reserve.
  }
}

}  // namespace vswitch
