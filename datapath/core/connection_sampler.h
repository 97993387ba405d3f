// ConnectionSampler: how a forwarding thread finds connections that are worth giving to the kernel (the kernel path,
// kernel_connections.h), and how it lets the kernel have them.
//
// Which are worth it: connections that are busy, that is, with some super-frames within a second or, if they are TCP,
// some 60 packets of any size. Requests and responses are among them: each goes to its receiver on the core that it
// came by, where a thread between the two has to be met by both. Small datagrams leave faster as trains of our own
// (vport/frame_train.h), and so do small packets into a tunnel. Of packets that are no super-frames one in seventeen is
// looked at: an odd number, so that of a request and its response not always the same one is.
//
// What is known of connections is in sets of four. Of more in one set the one that has moved least makes room: however
// many there are, the three others get on.
//
// The thread that received a connection's packets is the one to switch it over, in a round in which no port had
// anything: then none of its packets is still on its way through this thread, to be overtaken.
//
// Thread safety: the packet path's functions are the owner's; take() and hand_over() are those of one other thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "datapath/base/clock.h"
#include "datapath/core/port_map.h"
#include "datapath/core/spsc_ring.h"
#include "datapath/core/wakeup.h"
#include "datapath/kernel_path/kernel_path.h"
#include "datapath/packet/packet.h"

namespace vswitch {

class ConnectionSampler {
 public:
  struct Candidate {
    ConnectionKey key;
    uint32_t in_port = 0, out_port = 0;
  };

  // `taker` is signalled when there are candidates. All outlive the sampler.
  ConnectionSampler(const PortMap& ports, KernelPath& path, Wakeup& taker)
      : ports_(ports), path_(path), taker_(taker) {}

  // ---- the forwarding thread
  bool wanted() const { return path_.useful(); }
  // A packet that just came in, of a flow that takes connections whole and sends them to `out_port`.
  void look(const Packet& packet, uint32_t out_port, Nanoseconds now) {
    if (packet.offload.gso == GsoType::none && ++seen_ % kSampled != 0) return;
    consider(packet, out_port, now);
  }
  // Whether the taker has handed something over.
  bool ready() const { return ready_.load(std::memory_order_relaxed); }
  // The kernel may have it: no packet is on its way through this thread, or waits for it.
  void activate();

  // ---- the taker
  bool take(Candidate& candidate) { return candidates_.pop(candidate); }
  // The kernel may have this connection as soon as the forwarding thread has none of its packets. False: the thread is
  // busy with others.
  bool hand_over(KernelPath::Use use) {
    if (!added_.push(std::move(use))) return false;
    ready_.store(true, std::memory_order_release);
    return true;
  }

 private:
  static constexpr uint32_t kSampled = 17;
  static constexpr size_t kSets = 256, kWays = 4;
  // What a packet is worth, besides its bytes, and what makes a candidate: 4 super-frames, or some 50 to 70 others.
  static constexpr uint32_t kPacketWorth = 4 << 10, kWorthIt = 256 << 10;
  static constexpr size_t kLarge = 1000;  // bytes, of a packet of a connection that moves a lot
  static constexpr Nanoseconds kForget = 1s;
  // Between any two offers, and between two of the same connection.
  static constexpr Nanoseconds kBetweenOffers = 50us, kBeforeNextTry = 100ms;

  struct Tracked {
    uint32_t tag = 0, worth = 0;
    bool large = false;  // some of its packets are
    Nanoseconds since{}, not_before{};
  };

  void consider(const Packet& packet, uint32_t out_port, Nanoseconds now);
  // What is known of this connection, which may be nothing yet.
  Tracked& known_of(uint32_t tag, Nanoseconds now);
  // What has no hook of its own is a way into a tunnel.
  bool served(uint32_t in_port, uint32_t out_port, bool large) const {
    const Vport *from = ports_.find(in_port), *to = ports_.find(out_port);
    if (from == nullptr || to == nullptr || from->kernel_path_hook() == 0) return false;
    return (large ? to->kernel_path_way_out() : to->kernel_path_hook()) != 0;
  }

  const PortMap& ports_;
  KernelPath& path_;
  Wakeup& taker_;
  uint32_t seen_ = 0;
  Nanoseconds last_offer_{};
  std::array<std::array<Tracked, kWays>, kSets> tracked_;
  SpscRing<Candidate> candidates_{256};
  SpscRing<KernelPath::Use> added_{256};
  std::atomic<bool> ready_{false};
};

}  // namespace vswitch
