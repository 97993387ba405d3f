#include "vswitchd/rules/rule_memory.h"

#include <sys/mman.h>

#include <array>
#include <bit>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#include "datapath/base/mutex.h"
#include "datapath/base/rcu.h"

namespace vswitch::rule_memory {
namespace {

constexpr size_t kChunk = 2 * 1024 * 1024;  // a huge page; chunks are aligned to it
// So many chunks of a size take pages as they are needed. From then on a huge page that is hardly used is little waste.
constexpr size_t kPlainChunks = 3;
constexpr size_t kGrain = 8;
constexpr size_t kLargestSmall = 1024;
constexpr size_t kLargestCut = 256 * 1024;  // above kLargestSmall: powers of two, which tables are
constexpr size_t kSizes = kLargestSmall / kGrain + 1 + 8;
constexpr size_t kSmallestOwnChunk = kChunk / 2;  // larger ones are mapped by themselves
constexpr std::align_val_t kLineAligned{64};

// The sanitizers know each allocation if it is the library's.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kCutChunks = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
constexpr bool kCutChunks = false;
#else
constexpr bool kCutChunks = true;
#endif
#else
constexpr bool kCutChunks = true;
#endif

size_t whole_chunks(size_t bytes) { return (bytes + kChunk - 1) / kChunk * kChunk; }

// `bytes` is a multiple of kChunk. Aligned by mapping one chunk more and giving back what is too much at both ends.
void* map_chunks(size_t bytes, bool huge) {
  void* mapped = mmap(nullptr, bytes + kChunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  auto* begin = static_cast<uint8_t*>(mapped);
  const size_t before = (kChunk - reinterpret_cast<uintptr_t>(begin) % kChunk) % kChunk;
  if (before > 0) munmap(begin, before);
  munmap(begin + before + bytes, kChunk - before);
  if (huge) (void)madvise(begin + before, bytes, MADV_HUGEPAGE);  // where there are none, small ones do
  return begin + before;
}

bool is_cut(size_t bytes) { return bytes <= kLargestSmall || (bytes <= kLargestCut && std::has_single_bit(bytes)); }

// Which of kSizes a block is of.
size_t size_index(size_t block) {
  if (block <= kLargestSmall) return block / kGrain;
  return kLargestSmall / kGrain + static_cast<size_t>(std::countr_zero(block / kLargestSmall));
}

struct FreeBlock {
  FreeBlock* next;
};

// At the start of each chunk of small blocks.
struct alignas(64) Chunk {
  FreeBlock* free = nullptr;
  size_t used = sizeof(Chunk);  // bytes handed out at least once
  size_t live = 0;              // blocks
  Chunk* previous = nullptr;    // among those of its size with room
  Chunk* next = nullptr;

  bool has_room(size_t block) const { return free != nullptr || used + block <= kChunk; }
};

class SmallBlocks {
 public:
  void* allocate(size_t block) {
    MutexLock lock(mutex_);
    Chunk*& with_room = with_room_[size_index(block)];
    if (with_room == nullptr) {
      const bool huge = chunks_[size_index(block)]++ >= kPlainChunks;
      with_room = new (map_chunks(kChunk, huge)) Chunk;
    }
    Chunk& chunk = *with_room;
    void* memory = chunk.free;
    if (memory != nullptr) {
      chunk.free = chunk.free->next;
    } else {
      memory = reinterpret_cast<uint8_t*>(&chunk) + chunk.used;
      chunk.used += block;
    }
    ++chunk.live;
    if (!chunk.has_room(block)) unlink(with_room, chunk);
    return memory;
  }

  void free(void* memory, size_t block) {
    MutexLock lock(mutex_);
    Chunk*& with_room = with_room_[size_index(block)];
    auto* chunk = reinterpret_cast<Chunk*>(reinterpret_cast<uintptr_t>(memory) / kChunk * kChunk);
    if (!chunk->has_room(block)) link(with_room, *chunk);
    chunk->free = new (memory) FreeBlock{chunk->free};
    // The last one with room stays, or the next allocation would map it again.
    if (--chunk->live > 0 || (with_room == chunk && chunk->next == nullptr)) return;
    unlink(with_room, *chunk);
    --chunks_[size_index(block)];
    munmap(chunk, kChunk);
  }

 private:
  static void link(Chunk*& first, Chunk& chunk) {
    chunk.previous = nullptr;
    chunk.next = first;
    if (first != nullptr) first->previous = &chunk;
    first = &chunk;
  }
  static void unlink(Chunk*& first, Chunk& chunk) {
    (chunk.previous == nullptr ? first : chunk.previous->next) = chunk.next;
    if (chunk.next != nullptr) chunk.next->previous = chunk.previous;
    chunk.previous = chunk.next = nullptr;
  }

  Mutex mutex_;
  std::array<Chunk*, kSizes> with_room_ GUARDED_BY(mutex_){};
  std::array<size_t, kSizes> chunks_ GUARDED_BY(mutex_){};
};

// Never destroyed: memory is still freed when the process ends.
SmallBlocks& small_blocks() {
  static auto& blocks = *new SmallBlocks;
  return blocks;
}

constexpr size_t kRetireBlocks = 256, kRetireBytes = 1024 * 1024;

struct Retired {
  void* memory;
  size_t bytes;
};

struct RetiredBlocks {
  Mutex mutex;
  std::vector<Retired> blocks GUARDED_BY(mutex);
  size_t bytes GUARDED_BY(mutex) = 0;
};

RetiredBlocks& retired_blocks() {
  static auto& blocks = *new RetiredBlocks;
  return blocks;
}

size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

void* allocate(size_t bytes) {
  if (!kCutChunks) return ::operator new(bytes, kLineAligned);
  if (is_cut(bytes)) return small_blocks().allocate(round_up(bytes, kGrain));
  if (bytes < kSmallestOwnChunk) return ::operator new(bytes, kLineAligned);
  return map_chunks(whole_chunks(bytes), true);
}

void free(void* memory, size_t bytes) noexcept {
  if (memory == nullptr) return;
  if (!kCutChunks) return ::operator delete(memory, kLineAligned);
  if (is_cut(bytes)) return small_blocks().free(memory, round_up(bytes, kGrain));
  if (bytes < kSmallestOwnChunk) return ::operator delete(memory, kLineAligned);
  munmap(memory, whole_chunks(bytes));
}

void retire(void* memory, size_t bytes) {
  std::vector<Retired> batch;
  {
    RetiredBlocks& waiting = retired_blocks();
    MutexLock lock(waiting.mutex);
    waiting.blocks.push_back({memory, bytes});
    waiting.bytes += bytes;
    if (waiting.blocks.size() < kRetireBlocks && waiting.bytes < kRetireBytes) return;
    batch.swap(waiting.blocks);
    waiting.bytes = 0;
  }
  rcu::retire([batch = std::move(batch)] {
    for (const Retired& block : batch) free(block.memory, block.bytes);
  });
}

}  // namespace vswitch::rule_memory
