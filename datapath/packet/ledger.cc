#include "datapath/packet/ledger.h"

namespace vswitch {

Ledger::~Ledger() {
  for (auto& chunk : chunks_) delete chunk.load(std::memory_order_relaxed);
}

// The release store lets a reader that finds the chunk see its counters' initial zeros.
Ledger::Chunk* Ledger::make_chunk(size_t index) {
  auto* chunk = new Chunk;
  chunks_[index].store(chunk, std::memory_order_release);
  return chunk;
}

}  // namespace vswitch
