// Ledger: the books of one thread. Every packet is accounted for (docs/architecture.md, "The books balance"):
//
//   received + injected + copies = sent + consumed + sum over reasons of dropped
//
// for every port p, where each term counts packets whose `in_port` is p, wherever they went, and hence in total:
//   received  taken from port p by a forwarding thread
//   injected  handed to the datapath by the control path on behalf of port p (packet-out; `dpctl receive` is received)
//   copies    additional packets made from packets of port p (output to several ports, clone, segmentation pieces)
//   sent      accepted by a vport (a super-frame counts once)
//   consumed  delivered to the control path and not returned (packet-in)
//   dropped   by reason
// Packets waiting in an upcall queue are neither: balance() counts them as `queued` through their own pair of counters.
//
// Thread safety: one writer thread per Ledger; any thread may read with relaxed loads (sums over ledgers are not a
// snapshot while traffic flows; they are exact once it has stopped).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "datapath/base/drop_reason.h"

namespace vswitch {

// Highest datapath port number + 1. Port 0 is never a port: packets without one (daemon-made) are booked under 0.
inline constexpr uint32_t kMaxPorts = 65536;

// A counter with one writer: plain add, readable from any thread.
class Counter {
 public:
  void add(uint64_t n = 1) { value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
  uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

struct PortBooks {
  Counter received, injected, copies, sent, consumed;
  Counter queued, dequeued;  // into and out of upcall queues; queued - dequeued are waiting
  std::array<Counter, kDropReasonCount> dropped;
};

class Ledger {
 public:
  Ledger() = default;
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  // The books of a port, made on first use by the writer (an allocation once per 64 ports). REQUIRES: port < kMaxPorts;
  // larger numbers are booked under 0. Writer only.
  PortBooks& port(uint32_t port_no) {
    if (port_no >= kMaxPorts) port_no = 0;
    Chunk* chunk = chunks_[port_no / kChunk].load(std::memory_order_relaxed);
    if (__builtin_expect(chunk == nullptr, 0)) chunk = make_chunk(port_no / kChunk);
    return (*chunk)[port_no % kChunk];
  }
  // Null when nothing was ever booked near that port. Any thread.
  const PortBooks* find(uint32_t port_no) const {
    const Chunk* chunk = port_no < kMaxPorts ? chunks_[port_no / kChunk].load(std::memory_order_acquire) : nullptr;
    return chunk == nullptr ? nullptr : &(*chunk)[port_no % kChunk];
  }
  void drop(uint32_t port_no, DropReason reason, uint64_t n = 1) {
    port(port_no).dropped[static_cast<size_t>(reason)].add(n);
  }

 private:
  static constexpr size_t kChunk = 64;
  using Chunk = std::array<PortBooks, kChunk>;
  Chunk* make_chunk(size_t index);
  std::array<std::atomic<Chunk*>, kMaxPorts / kChunk> chunks_{};
};

}  // namespace vswitch
