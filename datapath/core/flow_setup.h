// FlowSetup: what a miss leads to: the UpcallHandler says what is to be done with the packet, the flow is installed,
// the packet executed. SetupBatch does it for several misses together.
//
// Shared by the handler thread, which takes misses from the queues, and by forwarding threads that help it
// (help_policy.h). Any number of threads at once; each is a registered RCU reader and brings its own context.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "datapath/actions/execute.h"
#include "datapath/core/upcall.h"
#include "datapath/flow_table/flow_table.h"
#include "datapath/packet/thread_context.h"

namespace vswitch {

class FlowSetup {
 public:
  explicit FlowSetup(FlowTable& flows) : flows_(flows) {}

  // Packets are dropped (upcall_error) while there is none. Whoever replaces it waits for RCU readers.
  void set_handler(UpcallHandler* handler) { handler_.store(handler, std::memory_order_release); }
  UpcallHandler* handler() const { return handler_.load(std::memory_order_acquire); }
  FlowTable& flows() { return flows_; }

  // Translates the packet, which missed with `key`, installs the flow and executes the packet. `key` may not be
  // overwritten by what `sink` does.
  void answer(ThreadContext& ctx, ActionSink& sink, const FlowKey& key, PacketPtr packet);
  // The same where somebody may have installed the flow since the packet missed.
  void answer_unless_known(ThreadContext& ctx, ActionSink& sink, const FlowKey& key, PacketPtr packet);
  // Executes a packet of a flow that is there.
  static void execute(ThreadContext& ctx, ActionSink& sink, Flow& flow, const FlowKey& key, PacketPtr packet);
  // Called now and then by another: gets memory for flows to come, which those who set them up would wait for.
  void prepare();
  // Called now and then by who sets up flows: tells the handler when there are nearly as many as there may be.
  void report_crowd();

 private:
  friend class SetupBatch;
  // A miss that has been translated.
  struct Translated {
    Translated(UpcallHandler& handler, const FlowKey& key, const Packet& packet);
    // With the packet counted, so that whoever executes it need not: nobody can see the flow before that is so. To an
    // empty insertion where it lies: a copy of it would wait for all that was just written.
    void describe(const ThreadContext& ctx, const Packet& packet, FlowTable::Insertion& insertion);
    UpcallHandler& handler;
    const FlowKey& key;
    MissResult result;
  };
  // Executes the packet that was translated. `insertion`: what came of it; null: its flow was not to be installed.
  void finish(ThreadContext& ctx, ActionSink& sink, const Translated& translated, const FlowTable::Insertion* insertion,
              PacketPtr packet);

  FlowTable& flows_;
  std::atomic<UpcallHandler*> handler_{nullptr};
};

// Misses that are answered together: first all are translated, then their flows are installed for the price of one,
// then their packets executed one by one. They stay in the order that the caller keeps in all of that. Each packet is
// counted once, by a flow or as uncounted.
//
// Thread safety: one thread, which passes no quiescent state between the first add() and clear().
class SetupBatch {
 public:
  static constexpr size_t kMost = 32;

  explicit SetupBatch(FlowSetup& setup);

  bool empty() const { return count_ == 0; }
  size_t size() const { return count_; }
  // Translates the packet, unless one that was added before has a flow that will be this one's, too. Returns its
  // number. At most kMost between two clear(). `key` stays where it is, and as it is, until then.
  size_t add(const ThreadContext& ctx, const FlowKey& key, const Packet& packet);
  // The flows of what was added since the last time.
  void install();
  // The packet that was added with this number, installed since. Each once.
  void execute(size_t number, ThreadContext& ctx, ActionSink& sink, PacketPtr packet);
  void clear();

 private:
  static constexpr uint8_t kNone = 0xff;
  struct Miss {
    const FlowKey* key;
    uint8_t translated;  // its own, or that of the flow that it may belong to; kNone: there was no handler
    bool own;
  };
  // In which most packets that come together differ: IPv4 addresses, ports. Those of a flow, masked, and the mask.
  static constexpr std::array<size_t, 2> kTelling = {4, 5};
  struct Telling {
    std::array<uint64_t, kTelling.size()> value, mask;
  };
  uint8_t find(const FlowKey& key) const;
  void insert_later(uint8_t number, const ThreadContext& ctx, const Packet& packet);

  FlowSetup& setup_;
  size_t count_ = 0;
  std::array<Miss, kMost> misses_;
  std::vector<FlowSetup::Translated> translated_;
  // Of those that are to be installed.
  std::vector<FlowTable::Insertion> insertions_;
  std::array<Telling, kMost> telling_;
  std::array<uint8_t, kMost> insertion_of_;   // by number in translated_, or kNone
  std::array<uint8_t, kMost> translated_of_;  // by number in insertions_
  size_t installed_ = 0;                      // insertions so far that have been tried
};

}  // namespace vswitch
