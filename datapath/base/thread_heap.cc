#include "datapath/base/thread_heap.h"

#include <unistd.h>

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <new>

#include "datapath/base/sanitizer.h"

namespace vswitch {
namespace {

// Each smaller than what malloc gives memory of its own from (128 kB).
constexpr size_t kBlock = size_t{64} * 1024, kBlocks = 16;
// Larger than what it keeps for each thread beside the heap.
constexpr size_t kPin = 2048, kPins = 4;

}  // namespace

void prepare_thread_heap() {
  if (kSanitized) return;
  // While one lies behind the blocks, the heap does not shrink when they go. Nearly always the first does; not in a
  // heap that an ended thread left with a gap.
  thread_local std::array<std::unique_ptr<volatile std::byte[]>, kPins> pins;
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::array<std::unique_ptr<volatile std::byte[]>, kBlocks> blocks;
  try {
    for (auto& block : blocks) {
      block.reset(new std::byte[kBlock]);
      for (size_t i = 0; i < kBlock; i += page) block[i] = std::byte{0};
    }
    for (auto& pin : pins) {
      pin.reset(new std::byte[kPin]);
      if (std::greater<>()(pin.get(), blocks.back().get())) break;
    }
  } catch (const std::bad_alloc&) {
    // All that is missing is a reserve.
  }
}

}  // namespace vswitch
