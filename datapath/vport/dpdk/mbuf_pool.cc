#include "datapath/vport/dpdk/mbuf_pool.h"

#include <fmt/format.h>
#include <rte_errno.h>

#include <atomic>
#include <chrono>
#include <map>
#include <thread>
#include <vector>

#include "datapath/base/mutex.h"
#include "datapath/vport/dpdk/eal.h"

namespace vswitch::dpdk {
namespace {

constexpr uint32_t kDefaultMbufs = 262'144;
constexpr uint32_t kFewestMbufs = 8'192;
// The most that DPDK allows: bursts that wait in a port's queue or in the slow path stay within it.
constexpr unsigned kCacheSize = RTE_MEMPOOL_CACHE_MAX_SIZE;

struct Pools {
  Mutex mutex;
  std::map<MbufPoolConfig, std::weak_ptr<MbufPool>> in_use GUARDED_BY(mutex);
  // No port uses them, but some of their packets are still on the way.
  std::vector<std::unique_ptr<MbufPool>> draining GUARDED_BY(mutex);
};

Pools& pools() {
  static Pools* const pools = new Pools;
  return *pools;
}

// Counting is not exact while packets are being freed: some may be counted in a thread's cache and in the pool. Nothing
// moves any more once all are back.
bool is_drained(const MbufPool& pool) {
  for (int looks = 0; looks < 5; ++looks) {
    if (rte_mempool_full(pool.mempool()) == 0) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  return true;
}

void free_drained(std::vector<std::unique_ptr<MbufPool>>& draining) {
  std::erase_if(draining, [](const std::unique_ptr<MbufPool>& pool) { return is_drained(*pool); });
}

// The last port that used the pool is gone.
void release(MbufPool* pool) {
  Pools& all = pools();
  MutexLock lock(all.mutex);
  all.draining.emplace_back(pool);
  free_drained(all.draining);
}

rte_mempool* make_mempool(const MbufPoolConfig& config, uint32_t mbufs) {
  static std::atomic<uint64_t> made{0};
  const std::string name = fmt::format("vswitch{}", made.fetch_add(1));
  const unsigned cache = mbufs >= 2 * kCacheSize ? kCacheSize : mbufs / 3;
  return rte_pktmbuf_pool_create(name.c_str(), mbufs, cache, static_cast<uint16_t>(MbufPool::kPrivateSize),
                                 static_cast<uint16_t>(config.data_room), config.numa_node);
}

}  // namespace

Result<std::shared_ptr<MbufPool>> MbufPool::get(const MbufPoolConfig& config) {
  Pools& all = pools();
  MutexLock lock(all.mutex);
  free_drained(all.draining);
  std::weak_ptr<MbufPool>& known = all.in_use[config];
  if (std::shared_ptr<MbufPool> pool = known.lock()) return pool;
  Result<std::shared_ptr<MbufPool>> pool = make(config);
  if (pool.ok()) known = *pool;
  return pool;
}

Result<std::shared_ptr<MbufPool>> MbufPool::make(const MbufPoolConfig& config) {
  const LogCapture capture;
  uint32_t mbufs = config.mbufs != 0 ? config.mbufs : kDefaultMbufs;
  rte_mempool* mempool = make_mempool(config, mbufs);
  int error = rte_errno;
  while (mempool == nullptr && config.mbufs == 0 && mbufs > kFewestMbufs) {
    mbufs /= 2;
    mempool = make_mempool(config, mbufs);
    error = rte_errno;
  }
  if (mempool == nullptr) {
    const size_t each = sizeof(rte_mbuf) + kPrivateSize + config.data_room;
    return resource_exhausted(
        fmt::format(
            "no memory for {} packet buffers of {} bytes ({} MB): {}{}; reserve more huge pages or ask for less "
            "with dpdk-mbufs or dpdk-mbuf-size",
            mbufs, each, mbufs * each >> 20, error_text(error), capture.lines()),
        "options:dpdk-mbufs");
  }
  return std::shared_ptr<MbufPool>(new MbufPool(mempool, config), release);
}

MbufPool::MbufPool(rte_mempool* mempool, const MbufPoolConfig& config)
    : PacketPool(config.data_room, mempool->size, Memory::mbuf), mempool_(mempool) {
  const auto build = [](rte_mempool*, void* self, void* object, unsigned) {
    auto* mbuf = static_cast<rte_mbuf*>(object);
    static_cast<MbufPool*>(self)->construct(packet_of(mbuf), static_cast<uint8_t*>(mbuf->buf_addr));
  };
  rte_mempool_obj_iter(mempool, build, this);
}

MbufPool::~MbufPool() { rte_mempool_free(mempool_); }

Packet* MbufPool::take_foreign() {
  rte_mbuf* const mbuf = rte_pktmbuf_alloc(mempool_);
  return mbuf == nullptr ? nullptr : packet_of(mbuf);
}

// The mbufs of packets have one reference and one segment, as a free mbuf must: no need to look at each.
void MbufPool::give_back_foreign(Packet* const* packets, size_t count) {
  constexpr size_t kBurst = 32;
  void* mbufs[kBurst];
  while (count != 0) {
    const size_t n = count < kBurst ? count : kBurst;
    for (size_t i = 0; i < n; ++i) mbufs[i] = mbuf_of(packets[i]);
    rte_mempool_put_bulk(mempool_, mbufs, static_cast<unsigned>(n));
    packets += n;
    count -= n;
  }
}

}  // namespace vswitch::dpdk
