// A hash over 64-bit words, for the tables that packets are looked up in.
//
// Keys come from traffic, so whoever sends packets could aim for collisions if the hash were known: it is keyed with a
// secret that each process draws at random. Values are therefore different in every process and must not be stored.
// Thread-safe: constant after static initialisation.
#pragma once

#include <sys/random.h>

#include <array>
#include <cstdint>
#include <random>

namespace vswitch {

struct HashSecret {
  uint64_t word;                  // mixed into every word
  uint64_t state;                 // where a hash starts
  std::array<uint64_t, 8> lanes;  // one for each word of hash_pair()'s callers
};

inline HashSecret draw_hash_secret() {
  HashSecret secret{};
  uint64_t drawn[2];
  if (getrandom(drawn, sizeof drawn, GRND_NONBLOCK) == static_cast<ssize_t>(sizeof drawn)) {
    secret.word = drawn[0];
    secret.state = drawn[1];
  } else {
    std::random_device device;  // early boot, or a sandbox without the system call
    secret.word = uint64_t{device()} << 32 | device();
    secret.state = uint64_t{device()} << 32 | device();
  }
  secret.word |= 1;
  uint64_t sequence = secret.state;
  for (uint64_t& lane : secret.lanes) {  // the steps of splitmix64
    uint64_t z = sequence += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    lane = (z ^ z >> 31) ^ secret.word;
  }
  return secret;
}

inline const HashSecret kHashSecret = draw_hash_secret();

// Adds one word to a hash. Both halves of the 128-bit product are folded, so every input bit reaches every output bit.
inline uint64_t hash_word(uint64_t state, uint64_t word) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(word ^ kHashSecret.word) * (state ^ 0x9e3779b97f4a7c15ULL);
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// Two words at once, each under a secret of its own. Pairs do not depend on each other, so a processor works on several
// at a time; combine their results with ^.
inline uint64_t hash_pair(uint64_t a, uint64_t b, uint64_t secret_a, uint64_t secret_b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a ^ secret_a) * (b ^ secret_b);
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

inline uint64_t hash_start() { return kHashSecret.state; }

// 32 bits of a finished hash; the low ones are fit to index a table.
inline uint32_t hash_finish(uint64_t state) {
  state *= 0xd6e8feb86659fd93ULL;
  return static_cast<uint32_t>(state >> 32);
}

}  // namespace vswitch
