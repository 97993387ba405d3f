// RuleMemory: memory for what lookups among many rules touch: rules, matches, the nodes and tables of classifiers.
//
// With a million rules a lookup's time is that of a few loads from memory, and as much again goes into translating
// their addresses, unless these lie in huge pages. So small objects and tables are cut from chunks of 2 MB, and large
// tables have chunks of their own; both ask for huge pages, but the first few chunks do not: few rules take little
// memory. Each size takes 64 kB of a chunk at a time. What is freed is used again for the same size, or, when all of
// its 64 kB is, for any: tables and nodes that grow leave little behind. A chunk that is empty goes back to the system.
//
// The kernel provides a huge page when it is first touched, and clears it, which takes up to milliseconds. Who knows
// that rules are about to come has that done before (rule_provision.h).
//
// Thread safety: all functions, under one lock. Those that are not noexcept throw std::bad_alloc.
#pragma once

#include <cstddef>

namespace vswitch::rule_memory {

// Aligned to 8 bytes; to 16 or 64 where `bytes` is a multiple of that.
void* allocate(size_t bytes);
// REQUIRES: `memory` comes from allocate(bytes), the same number, or is null.
void free(void* memory, size_t bytes) noexcept;
// free() some time after a grace period: blocks wait for others, so that the growth of many small tables costs one
// callback for hundreds of them.
void retire(void* memory, size_t bytes);

inline constexpr size_t kChunk = 2 * 1024 * 1024;  // a huge page; chunks are aligned to it

// Has the kernel provide one chunk more, for allocations to come. Others may allocate meanwhile. False: there is none.
bool provide_chunk() noexcept;
// How many of these have not been used.
size_t provided_chunks() noexcept;
// Gives back so many of them, or all.
void give_back_chunks(size_t n) noexcept;

}  // namespace vswitch::rule_memory
