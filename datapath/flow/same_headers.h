// have_same_headers(): whether one flow key stands for all packets of a batch.
//
// A flow that sends much fills whole batches with packets that differ in what no key looks at: payload, checksums, the
// IPv4 id, TCP's numbers. Comparing the bytes that do matter costs a fraction of extracting and hashing them.
//
// Thread-safe: touches only its arguments.
#pragma once

#include <cstddef>

#include "datapath/packet/packet.h"

namespace vswitch {

// True only if extraction finds equal keys, layers and hashes for all of them: TCP or UDP over IPv4 without tags,
// options and fragments, of the same size, with the same metadata (none but the port and recirculation). False says
// nothing.
[[nodiscard]] bool have_same_headers(const Packet* const packets[], size_t count);

}  // namespace vswitch
