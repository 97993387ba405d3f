// FlowArena: the memory that a table's flows live in. Private to the flow table.
//
// A flow is constructed once, in its place, and from then on only filled in and emptied again: so a pointer to a flow
// is always a pointer to some flow, alive or not, as long as the arena lives. That is what lets a cache keep pointers
// without counting references, which would cost it an atomic operation on a cold line for each entry that it replaces.
// Its memory does not shrink: it is bounded by the table's limit of flows.
//
// Thread safety: all functions, under a lock of its own. Lives as long as the table and whatever that retired.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "datapath/base/mutex.h"
#include "datapath/flow_table/flow_table.h"

namespace vswitch {

class FlowArena {
 public:
  FlowArena() = default;
  ~FlowArena();
  FlowArena(const FlowArena&) = delete;
  FlowArena& operator=(const FlowArena&) = delete;

  // As many flows as there are places, not alive, with room for so many words behind each. All or, with
  // std::bad_alloc, none.
  void take(size_t rest_words, std::span<Flow*> flows);
  // REQUIRES: no reader can have found it alive.
  void give_back(Flow* flow);
  // Has the kernel provide memory for some thousand flows more than there are, unless it has: called now and then, it
  // spares those who set flows up in a hurry that wait. Of flows without words behind them, as most are.
  void prepare();
  // The next flows at the cursor, `most` at most, alive or not, one behind the other in memory `size` bytes apart;
  // moves the cursor behind them. Null `first`: there are no more.
  struct Run {
    Flow* first = nullptr;
    size_t count = 0, size = 0;
  };
  Run next_run(FlowCursor& cursor, size_t most) const;
  // Of one flow with so many words.
  static size_t flow_bytes(size_t rest_words);

 private:
  // Words behind the object, by size class.
  static constexpr std::array<size_t, 5> kRestWords = {0, 8, 16, 32, kFlowKeyWords - kHotWords};
  static size_t class_of(size_t rest_words);

  struct Chunk {
    uint8_t* memory;
    size_t size;
    size_t flow_size;
    size_t flows;    // constructed so far
    size_t present;  // bytes that the kernel has been asked to provide
  };
  struct Chunks {
    std::vector<Chunk> all;
    size_t current = 0;  // those before it are full, those behind it empty
  };
  static size_t room(const Chunks& chunks);
  static void add_chunk(Chunks& chunks, size_t size, size_t flow_size);
  static void provide(Chunk& chunk, size_t bytes);
  Flow* carve(size_t size_class) REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::array<std::vector<Flow*>, kRestWords.size()> free_ GUARDED_BY(mutex_);
  std::array<Chunks, kRestWords.size()> chunks_ GUARDED_BY(mutex_);
};

}  // namespace vswitch
