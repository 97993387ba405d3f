#include "datapath/flow_table/flow_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace vswitch {
namespace {

// The first chunk is small, each next one twice as large, up to the size of a huge page: lookups among many flows are
// bound by how far the processor's address translation reaches.
constexpr size_t kFirstChunk = 16 * 1024, kLargestChunk = 2 * 1024 * 1024;

uint8_t* map_chunk(size_t size) {
  auto* memory = static_cast<uint8_t*>(::operator new (size, std::align_val_t{size}));
  if (size == kLargestChunk) (void)madvise(memory, size, MADV_HUGEPAGE);
  return memory;
}

}  // namespace

FlowArena::~FlowArena() {
  for (const std::vector<Chunk>& chunks : chunks_) {
    for (const Chunk& chunk : chunks) {
      for (size_t i = 0; i < chunk.flows; ++i) reinterpret_cast<Flow*>(chunk.memory + i * chunk.flow_size)->~Flow();
      ::operator delete (chunk.memory, std::align_val_t{chunk.size});
    }
  }
}

size_t FlowArena::class_of(size_t rest_words) {
  size_t i = 0;
  while (kRestWords[i] < rest_words) ++i;
  return i;
}

size_t FlowArena::flow_bytes(size_t rest_words) {
  const size_t bytes = sizeof(Flow) + kRestWords[class_of(rest_words)] * sizeof(uint64_t);
  return (bytes + alignof(Flow) - 1) / alignof(Flow) * alignof(Flow);
}

Flow* FlowArena::carve(size_t size_class) {
  std::vector<Chunk>& chunks = chunks_[size_class];
  const size_t flow_size = flow_bytes(kRestWords[size_class]);
  if (chunks.empty() || (chunks.back().flows + 1) * flow_size > chunks.back().size) {
    const size_t size = chunks.empty() ? kFirstChunk : std::min(chunks.back().size * 2, kLargestChunk);
    chunks.reserve(chunks.size() + 1);
    chunks.push_back({map_chunk(size), size, flow_size, 0});
  }
  Chunk& chunk = chunks.back();
  Flow* flow = new (chunk.memory + chunk.flows * flow_size) Flow;
  flow->size_class_ = static_cast<uint32_t>(size_class);
  ++chunk.flows;
  return flow;
}

FlowArena::Run FlowArena::next_run(FlowCursor& cursor, size_t most) const {
  MutexLock lock(mutex_);
  for (; cursor.size_class < chunks_.size(); ++cursor.size_class, cursor.chunk = cursor.flow = 0) {
    const std::vector<Chunk>& chunks = chunks_[cursor.size_class];
    for (; cursor.chunk < chunks.size(); ++cursor.chunk, cursor.flow = 0) {
      const Chunk& chunk = chunks[cursor.chunk];
      if (cursor.flow >= chunk.flows) continue;
      auto* first = reinterpret_cast<Flow*>(chunk.memory + cursor.flow * chunk.flow_size);
      const Run run{first, std::min(most, chunk.flows - cursor.flow), chunk.flow_size};
      cursor.flow += run.count;
      return run;
    }
  }
  return {};
}

Flow* FlowArena::take(size_t rest_words) {
  const size_t size_class = class_of(rest_words);
  MutexLock lock(mutex_);
  std::vector<Flow*>& free = free_[size_class];
  if (free.empty()) return carve(size_class);
  Flow* flow = free.back();
  free.pop_back();
  return flow;
}

void FlowArena::give_back(Flow* flow) {
  MutexLock lock(mutex_);
  free_[flow->size_class_].push_back(flow);
}

}  // namespace vswitch
