#include "datapath/base/block_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>

namespace vswitch {
namespace {

constexpr size_t kPieceBytes = size_t{64} * 1024;

// Not under the lock: the kernel may take long.
uint8_t* map_piece() {
  void* piece = mmap(nullptr, kPieceBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (piece == MAP_FAILED) throw std::bad_alloc();
  return static_cast<uint8_t*>(piece);
}

}  // namespace

void BlockPool::take(std::span<void*> blocks) {
  while (!try_take(blocks)) add(map_piece());
}

void BlockPool::prepare(size_t bytes) {
  while (free() * bytes_ < bytes) add(map_piece());
}

size_t BlockPool::free() const {
  AwakeMutexLock lock(mutex_);
  return free_.size();
}

bool BlockPool::try_take(std::span<void*> blocks) {
  AwakeMutexLock lock(mutex_);
  if (free_.size() < blocks.size()) return false;
  std::copy_n(free_.rbegin(), blocks.size(), blocks.rbegin());
  free_.resize(free_.size() - blocks.size());
  return true;
}

void BlockPool::add(uint8_t* piece) {
  const size_t more = kPieceBytes / bytes_;
  AwakeMutexLock lock(mutex_);
  try {
    if (free_.capacity() < all_ + more) free_.reserve(std::max(all_ + more, 2 * free_.capacity()));
  } catch (const std::bad_alloc&) {
    munmap(piece, kPieceBytes);
    throw;
  }
  all_ += more;
  for (size_t i = 0; i < more; ++i) free_.push_back(piece + i * bytes_);
}

void BlockPool::give_back(std::span<void* const> blocks) noexcept {
  AwakeMutexLock lock(mutex_);
  free_.insert(free_.end(), blocks.begin(), blocks.end());
}

void BlockMagazine::load(BlockPool& pool) {
  const size_t n = most_ == 0 ? 1 : kTogether;
  pool.take(std::span(blocks_).first(n));
  count_ = n;
}

void BlockMagazine::unload(BlockPool& pool) noexcept {
  const size_t n = std::min(count_, kTogether);
  pool.give_back(std::span(blocks_).subspan(count_ - n, n));
  count_ -= n;
}

void BlockMagazine::close(BlockPool& pool) noexcept {
  pool.give_back(std::span(blocks_).first(count_));
  count_ = most_ = 0;
}

}  // namespace vswitch
