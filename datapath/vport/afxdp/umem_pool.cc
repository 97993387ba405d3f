#include "datapath/vport/afxdp/umem_pool.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <new>

namespace vswitch::afxdp {
namespace {

constexpr size_t kNoSlot = SIZE_MAX;
constexpr size_t kMostHolders = UINT16_MAX;

uint8_t* map_memory(size_t size) {
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<uint8_t*>(memory);
}

}  // namespace

struct UmemPool::Pools {
  Mutex mutex;
  std::map<size_t, std::weak_ptr<UmemPool>> in_use GUARDED_BY(mutex);
  // No port uses them, but some of their packets are still on the way.
  std::vector<std::unique_ptr<UmemPool>> parked GUARDED_BY(mutex);
  std::vector<UmemPool*> all GUARDED_BY(mutex);
  std::array<bool, kCaches> slots GUARDED_BY(mutex) = {};

  void free_drained() REQUIRES(mutex);
};

UmemPool::Pools& UmemPool::pools() {
  static Pools* const pools = new Pools;
  return *pools;
}

// The thread's place among the caches of every pool. A thread that ends leaves nothing in them.
class UmemPool::ThreadSlot {
 public:
  ThreadSlot() {
    Pools& all = pools();
    MutexLock lock(all.mutex);
    const auto free = std::find(all.slots.begin(), all.slots.end(), false);
    if (free == all.slots.end()) return;
    *free = true;
    slot_ = static_cast<size_t>(free - all.slots.begin());
  }
  ~ThreadSlot() {
    if (slot_ == kNoSlot) return;
    Pools& all = pools();
    MutexLock lock(all.mutex);
    for (UmemPool* pool : all.all) pool->flush_cache(slot_);
    all.slots[slot_] = false;
  }
  size_t slot() const { return slot_; }

 private:
  size_t slot_ = kNoSlot;
};

Result<std::shared_ptr<UmemPool>> UmemPool::get(size_t frames) {
  Pools& all = pools();
  MutexLock lock(all.mutex);
  std::weak_ptr<UmemPool>& known = all.in_use[frames];
  if (std::shared_ptr<UmemPool> pool = known.lock()) return pool;
  const auto parked = std::find_if(all.parked.begin(), all.parked.end(),
                                   [&](const auto& pool) { return pool->packet_count() == frames; });
  UmemPool* pool = nullptr;
  if (parked != all.parked.end()) {
    pool = parked->release();
    all.parked.erase(parked);
  } else {
    try {
      pool = new UmemPool(frames);
    } catch (const std::bad_alloc&) {
      return resource_exhausted(fmt::format("no memory for {} packet buffers ({} MB); ask for less with umem-frames",
                                            frames, frames * kFrameSize >> 20),
                                "options:umem-frames");
    }
    all.all.push_back(pool);
  }
  std::shared_ptr<UmemPool> shared(pool, release);
  known = shared;
  return shared;
}

// The last port that used the pool is gone.
void UmemPool::release(UmemPool* pool) {
  Pools& all = pools();
  MutexLock lock(all.mutex);
  all.parked.emplace_back(pool);
  all.free_drained();
}

void UmemPool::Pools::free_drained() {
  std::erase_if(parked, [this](const std::unique_ptr<UmemPool>& pool) {
    mutex.assert_held();
    if (pool->in_use() != 0) return false;
    {
      MutexLock lock(pool->mutex_);
      if (!pool->waiting_.empty()) return false;
    }
    std::erase(all, pool.get());
    return true;
  });
}

UmemPool::UmemPool(size_t frames)
    : PacketPool(kFrameSize, frames, Memory::umem),
      cache_limit_(std::clamp<size_t>(frames / (2 * kCaches), 8, kCacheSize)),
      holders_(std::make_unique<std::atomic<HolderId>[]>(frames)) {
  area_ = map_memory(area_size());
  try {
    packets_ = map_memory(frames * kPacketStride);
  } catch (const std::bad_alloc&) {
    ::munmap(area_, area_size());
    throw;
  }
  ::madvise(area_, area_size(), MADV_HUGEPAGE);
  MutexLock lock(mutex_);
  free_.reserve(frames);
  for (size_t i = frames; i-- > 0;) {
    free_.push_back(construct(packets_ + i * kPacketStride, area_ + i * kFrameSize));
  }
  holder_names_.assign(1, true);  // kNobody
}

UmemPool::~UmemPool() {
  ::munmap(packets_, packet_count() * kPacketStride);
  ::munmap(area_, area_size());
}

UmemPool::Cache* UmemPool::cache() {
  thread_local const ThreadSlot slot;
  return slot.slot() == kNoSlot ? nullptr : &caches_[slot.slot()];
}

size_t UmemPool::take_shared(Packet** packets, size_t count) {
  if (free_.size() < count && !waiting_.empty()) {
    const auto now = std::chrono::steady_clock::now();
    std::erase_if(waiting_, [&](const Waiting& waiting) {
      mutex_.assert_held();
      if (waiting.until > now) return false;
      free_.insert(free_.end(), waiting.packets.begin(), waiting.packets.end());
      return true;
    });
  }
  const size_t taken = std::min(count, free_.size());
  std::copy(free_.end() - static_cast<std::ptrdiff_t>(taken), free_.end(), packets);
  free_.resize(free_.size() - taken);
  return taken;
}

size_t UmemPool::take(Packet** packets, size_t count) {
  Cache* const mine = cache();
  if (mine == nullptr) {
    MutexLock lock(mutex_);
    return take_shared(packets, count);
  }
  size_t cached = mine->size.load(std::memory_order_relaxed);
  size_t taken = std::min(count, cached);
  cached -= taken;
  std::copy_n(mine->packets.begin() + static_cast<std::ptrdiff_t>(cached), taken, packets);
  if (taken < count) {
    MutexLock lock(mutex_);
    taken += take_shared(packets + taken, count - taken);
    cached = take_shared(mine->packets.data(), cache_limit_ / 2);
  }
  mine->size.store(cached, std::memory_order_relaxed);
  return taken;
}

Packet* UmemPool::take_foreign() {
  Packet* packet = nullptr;
  take(&packet, 1);
  return packet;
}

void UmemPool::give_back_foreign(Packet* const* packets, size_t count) {
  Cache* const mine = cache();
  size_t cached = mine == nullptr ? 0 : mine->size.load(std::memory_order_relaxed);
  if (mine != nullptr && cached + count <= cache_limit_) {
    std::copy_n(packets, count, mine->packets.begin() + static_cast<std::ptrdiff_t>(cached));
    mine->size.store(cached + count, std::memory_order_relaxed);
    return;
  }
  MutexLock lock(mutex_);
  free_.insert(free_.end(), packets, packets + count);
  if (mine == nullptr) return;
  // Half of the cache goes too: room for the next ones.
  const size_t kept = std::min(cached, cache_limit_ / 2);
  free_.insert(free_.end(), mine->packets.begin() + static_cast<std::ptrdiff_t>(kept),
               mine->packets.begin() + static_cast<std::ptrdiff_t>(cached));
  mine->size.store(kept, std::memory_order_relaxed);
}

void UmemPool::flush_cache(size_t slot) {
  Cache& cache = caches_[slot];
  const size_t cached = cache.size.load(std::memory_order_relaxed);
  MutexLock lock(mutex_);
  free_.insert(free_.end(), cache.packets.begin(), cache.packets.begin() + static_cast<std::ptrdiff_t>(cached));
  cache.size.store(0, std::memory_order_relaxed);
}

size_t UmemPool::share() const {
  // Half is for fill rings; the rest is in the switch, or on its way out.
  const auto queues = static_cast<size_t>(std::max(1, queues_.load(std::memory_order_relaxed)));
  return packet_count() / 2 / queues;
}

UmemPool::HolderId UmemPool::new_holder() {
  MutexLock lock(mutex_);
  const auto free = std::find(holder_names_.begin(), holder_names_.end(), false);
  const auto name = static_cast<size_t>(free - holder_names_.begin());
  if (name > kMostHolders) return kNobody;
  if (free == holder_names_.end()) {
    holder_names_.push_back(true);
  } else {
    *free = true;
  }
  return static_cast<HolderId>(name);
}

void UmemPool::reclaim(HolderId id, std::chrono::milliseconds after) {
  std::vector<Packet*> home;
  for (size_t i = 0; i < packet_count(); ++i) {
    if (holders_[i].load(std::memory_order_relaxed) != id) continue;
    holders_[i].store(kNobody, std::memory_order_relaxed);
    home.push_back(packet_at(i * kFrameSize));
  }
  MutexLock lock(mutex_);
  holder_names_[id] = false;
  if (after.count() == 0) {
    free_.insert(free_.end(), home.begin(), home.end());
  } else {
    waiting_.push_back({std::chrono::steady_clock::now() + after, std::move(home)});
  }
}

size_t UmemPool::in_use() const {
  MutexLock lock(mutex_);
  size_t idle = free_.size();
  for (const Waiting& waiting : waiting_) idle += waiting.packets.size();
  for (const Cache& cache : caches_) idle += cache.size.load(std::memory_order_relaxed);
  return packet_count() - std::min(idle, packet_count());
}

}  // namespace vswitch::afxdp
