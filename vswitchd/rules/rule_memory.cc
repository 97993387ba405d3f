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
#include "datapath/base/sanitizer.h"

namespace vswitch::rule_memory {
namespace {

// So many chunks take pages as they are needed. From then on a huge page that is hardly used is little waste.
constexpr size_t kPlainChunks = 3;
constexpr size_t kGrain = 64 * 1024;  // what one size takes from a chunk at a time
constexpr size_t kGrains = kChunk / kGrain;
constexpr size_t kBlockGrain = 8;
constexpr size_t kLargestSmall = 1024;
constexpr size_t kLargestCut = 256 * 1024;  // above kLargestSmall: powers of two, which tables are
constexpr size_t kSizes = kLargestSmall / kBlockGrain + 1 + 8;
constexpr size_t kSmallestOwnChunk = kChunk / 2;  // larger ones are mapped by themselves
constexpr std::align_val_t kLineAligned{64};

size_t whole_chunks(size_t bytes) { return (bytes + kChunk - 1) / kChunk * kChunk; }

// `bytes` is a multiple of kChunk. Aligned by mapping one chunk more and giving back what is too much at both ends.
// Null if there is none.
void* try_map_chunks(size_t bytes, bool huge) {
  void* mapped = mmap(nullptr, bytes + kChunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* begin = static_cast<uint8_t*>(mapped);
  const size_t before = (kChunk - reinterpret_cast<uintptr_t>(begin) % kChunk) % kChunk;
  if (before > 0) munmap(begin, before);
  munmap(begin + before + bytes, kChunk - before);
  if (huge) (void)madvise(begin + before, bytes, MADV_HUGEPAGE);  // where there are none, small ones do
  return begin + before;
}

void* map_chunks(size_t bytes, bool huge) {
  void* mapped = try_map_chunks(bytes, huge);
  if (mapped == nullptr) throw std::bad_alloc();
  return mapped;
}

bool is_cut(size_t bytes) { return bytes <= kLargestSmall || (bytes <= kLargestCut && std::has_single_bit(bytes)); }

// Which of kSizes a block is of.
size_t size_index(size_t block) {
  if (block <= kLargestSmall) return block / kBlockGrain;
  return kLargestSmall / kBlockGrain + static_cast<size_t>(std::countr_zero(block / kLargestSmall));
}

struct FreeBlock {
  FreeBlock* next;
};

// One grain of a chunk, cut into blocks of one size.
struct Span {
  FreeBlock* free = nullptr;
  uint8_t* begin = nullptr;  // of what was never handed out
  uint8_t* end = nullptr;
  size_t live = 0;           // blocks
  Span* previous = nullptr;  // among those of its size with room
  Span* next = nullptr;

  bool has_room(size_t block) const { return free != nullptr || static_cast<size_t>(end - begin) >= block; }
};

// At the start of each chunk that is cut, and so of its first grain.
struct alignas(64) Chunk {
  uint32_t free = ~uint32_t{0};  // bit: a grain
  Chunk* previous = nullptr;     // among those with free grains
  Chunk* next = nullptr;
  std::array<Span, kGrains> spans;
};
static_assert(kGrains == 32);

template <typename Item>
void link(Item*& first, Item& item) {
  item.previous = nullptr;
  item.next = first;
  if (first != nullptr) first->previous = &item;
  first = &item;
}

template <typename Item>
void unlink(Item*& first, Item& item) {
  (item.previous == nullptr ? first : item.previous->next) = item.next;
  if (item.next != nullptr) item.next->previous = item.previous;
  item.previous = item.next = nullptr;
}

struct Place {
  Chunk& chunk;
  size_t grain;

  explicit Place(void* memory)
      : chunk(*reinterpret_cast<Chunk*>(reinterpret_cast<uintptr_t>(memory) / kChunk * kChunk)),
        grain(reinterpret_cast<uintptr_t>(memory) % kChunk / kGrain) {}
  Place(Chunk& c, size_t g) : chunk(c), grain(g) {}
  uint8_t* memory() const { return reinterpret_cast<uint8_t*>(&chunk) + grain * kGrain; }
};

// Runs of grains: 1, 2 or 4 of them, aligned to their size.
class Grains {
 public:
  // The first grain of a chunk, part of which is the header, only where `with_header` is true.
  Place take(size_t n, bool with_header) {
    for (Chunk* chunk = with_free_; chunk != nullptr; chunk = chunk->next) {
      if (const size_t at = find(*chunk, n, with_header); at < kGrains) return take_from(*chunk, at, n);
    }
    Chunk* chunk = take_provided();
    if (chunk == nullptr) chunk = new (map_chunks(kChunk, chunks_ >= kPlainChunks)) Chunk;
    ++chunks_;
    link(with_free_, *chunk);
    return take_from(*chunk, find(*chunk, n, with_header), n);
  }
  void give_back(const Place& place, size_t n) {
    Chunk& chunk = place.chunk;
    if (chunk.free == 0) link(with_free_, chunk);
    chunk.free |= bits(n) << place.grain;
    if (chunk.free != ~uint32_t{0}) return;
    unlink(with_free_, chunk);
    --chunks_;
    munmap(&chunk, kChunk);
  }
  // Chunks that nothing has been taken from.
  void add_provided(Chunk& chunk) {
    link(provided_, chunk);
    ++provided_count_;
  }
  Chunk* take_provided() {
    Chunk* const chunk = provided_;
    if (chunk == nullptr) return nullptr;
    unlink(provided_, *chunk);
    --provided_count_;
    return chunk;
  }
  size_t provided_count() const { return provided_count_; }

 private:
  static uint32_t bits(size_t n) { return (uint32_t{1} << n) - 1; }
  // kGrains if there is none.
  static size_t find(const Chunk& chunk, size_t n, bool with_header) {
    const uint32_t free = with_header ? chunk.free : chunk.free & ~uint32_t{1};
    size_t at = 0;
    while (at < kGrains && (free >> at & bits(n)) != bits(n)) at += n;
    return at;
  }
  Place take_from(Chunk& chunk, size_t at, size_t n) {
    chunk.free &= ~(bits(n) << at);
    if (chunk.free == 0) unlink(with_free_, chunk);
    return {chunk, at};
  }

  Chunk* with_free_ = nullptr;
  size_t chunks_ = 0;
  Chunk* provided_ = nullptr;
  size_t provided_count_ = 0;
};

class SmallBlocks {
 public:
  void* allocate(size_t block) {
    MutexLock lock(mutex_);
    if (block >= kGrain) return grains_.take(block / kGrain, false).memory();
    Span*& with_room = with_room_[size_index(block)];
    if (with_room == nullptr) with_room = make_span(block);
    Span& span = *with_room;
    void* memory = span.free;
    if (memory != nullptr) {
      span.free = span.free->next;
    } else {
      memory = span.begin;
      span.begin += block;
    }
    ++span.live;
    if (!span.has_room(block)) unlink(with_room, span);
    return memory;
  }

  void add_provided(Chunk& chunk) {
    MutexLock lock(mutex_);
    grains_.add_provided(chunk);
  }
  Chunk* take_provided() {
    MutexLock lock(mutex_);
    return grains_.take_provided();
  }
  size_t provided_count() {
    MutexLock lock(mutex_);
    return grains_.provided_count();
  }

  void free(void* memory, size_t block) {
    MutexLock lock(mutex_);
    const Place place(memory);
    if (block >= kGrain) return grains_.give_back(place, block / kGrain);
    Span*& with_room = with_room_[size_index(block)];
    Span& span = place.chunk.spans[place.grain];
    if (!span.has_room(block)) link(with_room, span);
    span.free = new (memory) FreeBlock{span.free};
    // The last one with room stays, or the next allocation would take it again.
    if (--span.live > 0 || (with_room == &span && span.next == nullptr)) return;
    unlink(with_room, span);
    grains_.give_back(place, 1);
  }

 private:
  Span* make_span(size_t block) REQUIRES(mutex_) {
    const Place place = grains_.take(1, block <= kLargestSmall);
    uint8_t* begin = place.memory();
    Span& span = place.chunk.spans[place.grain];
    span = {nullptr, place.grain == 0 ? begin + sizeof(Chunk) : begin, begin + kGrain, 0, nullptr, nullptr};
    return &span;
  }

  Mutex mutex_;
  std::array<Span*, kSizes> with_room_ GUARDED_BY(mutex_){};
  Grains grains_ GUARDED_BY(mutex_);
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
  if (kSanitized) return ::operator new(bytes, kLineAligned);
  if (is_cut(bytes)) return small_blocks().allocate(round_up(bytes, kBlockGrain));
  if (bytes < kSmallestOwnChunk) return ::operator new(bytes, kLineAligned);
  return map_chunks(whole_chunks(bytes), true);
}

void free(void* memory, size_t bytes) noexcept {
  if (memory == nullptr) return;
  if (kSanitized) return ::operator delete(memory, kLineAligned);
  if (is_cut(bytes)) return small_blocks().free(memory, round_up(bytes, kBlockGrain));
  if (bytes < kSmallestOwnChunk) return ::operator delete(memory, kLineAligned);
  munmap(memory, whole_chunks(bytes));
}

bool provide_chunk() noexcept {
  if (kSanitized) return false;
  void* const memory = try_map_chunks(kChunk, true);
  if (memory == nullptr) return false;
#if defined(MADV_POPULATE_WRITE)
  (void)madvise(memory, kChunk, MADV_POPULATE_WRITE);  // where pages are small, all; older kernels: as they are touched
#endif
  small_blocks().add_provided(*new (memory) Chunk);
  return true;
}

size_t provided_chunks() noexcept { return small_blocks().provided_count(); }

void give_back_chunks(size_t n) noexcept {
  for (; n > 0; --n) {
    Chunk* const chunk = small_blocks().take_provided();
    if (chunk == nullptr) return;
    munmap(chunk, kChunk);
  }
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
