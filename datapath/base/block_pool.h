// BlockPool: memory for small objects of which there is one for each flow, made and destroyed by several threads.
//
// The C library's heaps of threads grow by a page at a time, with a system call and a fault for each: when thousands of
// flows come at once, that takes as long as filling them in. Here the kernel provides 16 pages in one call, a thread
// takes and gives back blocks by the dozen under one lock, and a block has no header. What is freed is used again for
// the same size, and never given back to the system: as many flows as there were may come again.
//
// BlockAllocator<T> is the standard library's form of it, for std::allocate_shared.
//
// Thread safety: all functions but those of BlockMagazine, which is one thread's. Throw std::bad_alloc where they take.
// With a sanitizer the library's own allocation does it, so that the sanitizer knows each block.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <vector>

#include "datapath/base/mutex.h"
#include "datapath/base/sanitizer.h"

namespace vswitch {

// Blocks of one size. Lives as long as the process.
class BlockPool {
 public:
  // `bytes`: a multiple of 16, 1 kB at most.
  explicit BlockPool(size_t bytes) : bytes_(bytes) {}
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // Fills in `blocks`; all or none.
  void take(std::span<void*> blocks);
  // Has the kernel provide memory until so many bytes are free, unless they are: called now and then, it spares those
  // who take that wait.
  void prepare(size_t bytes);
  // Blocks that need not be asked for from the kernel.
  size_t free() const EXCLUDES(mutex_);
  void give_back(std::span<void* const> blocks) noexcept;

 private:
  bool try_take(std::span<void*> blocks) EXCLUDES(mutex_);
  void add(uint8_t* piece) EXCLUDES(mutex_);

  const size_t bytes_;
  mutable Mutex mutex_;
  std::vector<void*> free_ GUARDED_BY(mutex_);  // has room for all that there are
  size_t all_ GUARDED_BY(mutex_) = 0;
};

// What one thread has of a pool at hand. Trivially destroyed: objects that end later than the thread's own may still
// give back their memory.
class BlockMagazine {
 public:
  void* take(BlockPool& pool) {
    if (count_ == 0) load(pool);
    return blocks_[--count_];
  }
  void give_back(BlockPool& pool, void* block) noexcept {
    if (count_ >= most_) unload(pool);
    blocks_[count_++] = block;
  }
  // From now on it keeps one at most.
  void close(BlockPool& pool) noexcept;

 private:
  static constexpr size_t kTogether = 32;  // blocks that move between a thread and the pool at a time
  void load(BlockPool& pool);
  void unload(BlockPool& pool) noexcept;

  std::array<void*, 2 * kTogether> blocks_{};
  size_t count_ = 0, most_ = 2 * kTogether;
};

// The pool that BlockAllocator<Owner>, or the last that was made of it, takes from. Null: nothing has been taken yet
// (how large the blocks are is the library's affair), or there is a sanitizer.
template <typename Owner>
struct BlockPoolOf {
  static inline std::atomic<BlockPool*> pool{nullptr};
};

// `Owner`: who asked for it; the library makes others of it, as for a shared object and its counts in one block.
template <typename T, typename Owner = T>
class BlockAllocator {
 public:
  using value_type = T;
  template <typename Other>
  struct rebind {  // NOLINT(readability-identifier-naming): the standard's
    using other = BlockAllocator<Other, Owner>;
  };

  BlockAllocator() = default;
  template <typename Other>
  BlockAllocator(const BlockAllocator<Other, Owner>&) {}  // NOLINT(google-explicit-constructor): as the standard asks

  T* allocate(size_t n) {
    if (n != 1 || kSanitized) return static_cast<T*>(::operator new(n * sizeof(T)));
    return static_cast<T*>(magazine().take(pool()));
  }
  void deallocate(T* block, size_t n) noexcept {
    if (n != 1 || kSanitized) return ::operator delete(block);
    magazine().give_back(pool(), block);
  }
  template <typename Other>
  bool operator==(const BlockAllocator<Other, Owner>&) const {
    return true;
  }

 private:
  static_assert(alignof(T) <= 16);

  static BlockPool& pool() {
    static auto& made = []() -> BlockPool& {
      auto* pool = new BlockPool((sizeof(T) + 15) / 16 * 16);
      BlockPoolOf<Owner>::pool.store(pool, std::memory_order_release);
      return *pool;
    }();
    return made;
  }
  static BlockMagazine& magazine() {
    thread_local constinit BlockMagazine of_thread;
    struct Closer {
      ~Closer() { of_thread.close(pool()); }
    };
    thread_local Closer closer;
    (void)closer;
    return of_thread;
  }
};

}  // namespace vswitch
