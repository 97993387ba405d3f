#include "datapath/flow_table/flow_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <memory>
#include <new>

namespace vswitch {
namespace {

// The first chunk is small, each next one twice as large, up to the size of a huge page: lookups among many flows are
// bound by how far the processor's address translation reaches.
constexpr size_t kFirstChunk = 16 * 1024, kLargestChunk = 2 * 1024 * 1024;

// The kernel provides so many bytes at a time, ahead of the flows: for a fraction of what a fault for each page takes.
constexpr size_t kAhead = 64 * 1024;
// So much is kept ready by prepare().
constexpr size_t kReserve = kLargestChunk;

uint8_t* map_chunk(size_t size) {
  auto* memory = static_cast<uint8_t*>(::operator new (size, std::align_val_t{size}));
  if (size == kLargestChunk) (void)madvise(memory, size, MADV_HUGEPAGE);
  return memory;
}

}  // namespace

FlowArena::~FlowArena() {
  for (const Chunks& chunks : chunks_) {
    for (const Chunk& chunk : chunks.all) {
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

void FlowArena::add_chunk(Chunks& chunks, size_t size, size_t flow_size) {
  chunks.all.reserve(chunks.all.size() + 1);
  chunks.all.push_back({map_chunk(size), size, flow_size, 0, 0});
}

// Bytes for flows that are there already.
size_t FlowArena::room(const Chunks& chunks) {
  size_t bytes = 0;
  for (size_t i = chunks.current; i < chunks.all.size(); ++i) {
    bytes += chunks.all[i].size - chunks.all[i].flows * chunks.all[i].flow_size;
  }
  return bytes;
}

void FlowArena::provide(Chunk& chunk, size_t bytes) {
  bytes = std::min(bytes, chunk.size - chunk.present);
#if defined(MADV_POPULATE_WRITE)
  if (bytes != 0) (void)madvise(chunk.memory + chunk.present, bytes, MADV_POPULATE_WRITE);  // unknown: page by page
#endif
  chunk.present += bytes;
}

Flow* FlowArena::carve(size_t size_class) {
  Chunks& chunks = chunks_[size_class];
  const size_t flow_size = flow_bytes(kRestWords[size_class]);
  const auto full = [flow_size](const Chunk& chunk) { return (chunk.flows + 1) * flow_size > chunk.size; };
  while (chunks.current < chunks.all.size() && full(chunks.all[chunks.current])) ++chunks.current;
  if (chunks.current == chunks.all.size()) {
    const size_t size = chunks.all.empty() ? kFirstChunk : std::min(chunks.all.back().size * 2, kLargestChunk);
    add_chunk(chunks, size, flow_size);
  }
  Chunk& chunk = chunks.all[chunks.current];
  if ((chunk.flows + 1) * flow_size > chunk.present) provide(chunk, kAhead);
  Flow* flow = new (chunk.memory + chunk.flows * flow_size) Flow;
  flow->size_class_ = static_cast<uint32_t>(size_class);
  ++chunk.flows;
  return flow;
}

// A chunk is provided as a whole before it is added, so that nobody waits for it.
void FlowArena::prepare() {
  constexpr size_t kClass = 0;
  {
    MutexLock lock(mutex_);
    if (room(chunks_[kClass]) >= kReserve) return;
  }
  const auto free = [](uint8_t* memory) { ::operator delete (memory, std::align_val_t{kLargestChunk}); };
  try {
    std::unique_ptr<uint8_t, decltype(free)> memory(map_chunk(kLargestChunk), free);
    Chunk chunk{memory.get(), kLargestChunk, flow_bytes(kRestWords[kClass]), 0, 0};
    provide(chunk, chunk.size);
    MutexLock lock(mutex_);
    chunks_[kClass].all.push_back(chunk);
    (void)memory.release();
  } catch (const std::bad_alloc&) {
    // All that is missing is a reserve.
  }
}

FlowArena::Run FlowArena::next_run(FlowCursor& cursor, size_t most) const {
  MutexLock lock(mutex_);
  for (; cursor.size_class < chunks_.size(); ++cursor.size_class, cursor.chunk = cursor.flow = 0) {
    const std::vector<Chunk>& chunks = chunks_[cursor.size_class].all;
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

void FlowArena::take(size_t rest_words, std::span<Flow*> flows) {
  const size_t size_class = class_of(rest_words);
  AwakeMutexLock lock(mutex_);
  std::vector<Flow*>& free = free_[size_class];
  if (free.size() < flows.size()) free.reserve(flows.size());  // if not all can be made, they go there
  size_t taken = 0;
  try {
    for (; taken < flows.size(); ++taken) {
      if (free.empty()) {
        flows[taken] = carve(size_class);
      } else {
        flows[taken] = free.back();
        free.pop_back();
      }
    }
  } catch (const std::bad_alloc&) {
    free.insert(free.end(), flows.begin(), flows.begin() + static_cast<ptrdiff_t>(taken));
    throw;
  }
}

void FlowArena::give_back(Flow* flow) {
  MutexLock lock(mutex_);
  free_[flow->size_class_].push_back(flow);
}

}  // namespace vswitch
