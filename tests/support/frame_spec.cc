#include "tests/support/frame_spec.h"

#include <algorithm>
#include <cstring>

namespace vswitch {

namespace {

constexpr uint8_t kRouting = 43;
constexpr uint8_t kAuthentication = 51;

size_t extension_size(uint8_t type) { return type == kRouting ? 24 : type == kAuthentication ? 12 : 8; }

void put16(Bytes& frame, size_t at, size_t value) {
  frame[at] = static_cast<uint8_t>(value >> 8);
  frame[at + 1] = static_cast<uint8_t>(value);
}

uint16_t get16(const Bytes& frame, size_t at) { return static_cast<uint16_t>(frame[at] << 8 | frame[at + 1]); }

void put_ethernet(Bytes& frame, const FrameSpec& spec) {
  frame[0] &= 0xfe;
  size_t at = 12;
  for (uint16_t tpid : spec.vlans) {
    put16(frame, at, tpid);
    frame[at + 2] &= 0xef;
    at += 4;
  }
  put16(frame, at, spec.v6 ? 0x86dd : 0x0800);
}

void put_ipv4(Bytes& frame, const FrameSpec& spec) {
  const size_t l3 = spec.l3();
  frame[l3] = static_cast<uint8_t>(0x45 + spec.options_size / 4);
  put16(frame, l3 + 2, spec.l3_end() - l3);
  put16(frame, l3 + 6, 0x4000);
  frame[l3 + 9] = spec.proto;
  put16(frame, l3 + 10, 0);
  put16(frame, l3 + 10, static_cast<uint16_t>(~naive_sum(&frame[l3], 20 + spec.options_size)));
}

void put_ipv6(Bytes& frame, const FrameSpec& spec) {
  const size_t l3 = spec.l3();
  frame[l3] = static_cast<uint8_t>(0x60 | (frame[l3] & 0x0f));
  put16(frame, l3 + 4, spec.l3_end() - l3 - 40);
  size_t next_at = l3 + 6;
  size_t at = l3 + 40;
  for (uint8_t type : spec.extensions) {
    frame[next_at] = type;
    const size_t size = extension_size(type);
    std::memset(&frame[at], 0, std::min<size_t>(size, 8));
    frame[at + 1] = static_cast<uint8_t>(type == kAuthentication ? size / 4 - 2 : size / 8 - 1);
    if (type == kRouting) frame[at + 3] = 1;
    next_at = at;
    at += size;
  }
  frame[next_at] = spec.proto;
}

void put_l4(Bytes& frame, const FrameSpec& spec) {
  const size_t l4 = spec.l4();
  const size_t size = spec.l3_end() - l4;
  if (spec.proto == 6) {
    frame[l4 + 12] = 0x50;
    frame[l4 + 13] = spec.tcp_flags;
  } else if (spec.proto == 17) {
    put16(frame, l4 + 4, size);
  } else if (spec.neighbour) {
    frame[l4] = 135;
    frame[l4 + 1] = 0;
    frame[l4 + 24] = 1;
    frame[l4 + 32] = 2;
    frame[l4 + 25] = frame[l4 + 33] = 1;
  }
  const size_t field = l4 + spec.checksum_offset();
  if (spec.proto == 132) {
    std::memset(&frame[field], 0, 4);
    const uint32_t crc = naive_crc32c(&frame[l4], size);
    for (size_t i = 0; i < 4; ++i) frame[field + i] = static_cast<uint8_t>(crc >> 8 * i);
    return;
  }
  put16(frame, field, 0);
  if (spec.proto == 17 && !spec.udp_checksum) return;
  const auto sum = static_cast<uint16_t>(~naive_sum(&frame[l4], size, spec.pseudo_sum(frame)));
  put16(frame, field, spec.proto == 17 && sum == 0 ? 0xffff : sum);
}

}  // namespace

size_t FrameSpec::l4() const {
  size_t at = l3() + (v6 ? 40 : 20 + options_size);
  if (v6) {
    for (uint8_t type : extensions) at += extension_size(type);
  }
  return at;
}

size_t FrameSpec::l4_header_size() const {
  switch (proto) {
    case 6:
      return 20;
    case 132:
      return 12;
    default:
      return neighbour ? 40 : 8;
  }
}

size_t FrameSpec::checksum_offset() const {
  switch (proto) {
    case 6:
      return 16;
    case 17:
      return 6;
    case 132:
      return 8;
    default:
      return 2;
  }
}

Bytes FrameSpec::build() const {
  std::mt19937 rng(seed);
  Bytes frame(l3_end() + padding);
  for (uint8_t& byte : frame) byte = static_cast<uint8_t>(rng());
  std::copy(payload.begin(), payload.end(), frame.begin() + static_cast<ptrdiff_t>(l4() + l4_header_size()));
  put_ethernet(frame, *this);
  if (v6) {
    put_ipv6(frame, *this);
  } else {
    put_ipv4(frame, *this);
  }
  put_l4(frame, *this);
  return frame;
}

uint16_t FrameSpec::pseudo_sum(const Bytes& frame) const {
  if (proto == 1 || proto == 132) return 0;
  const size_t size = get16(frame, l3() + (v6 ? 4 : 2)) + (v6 ? 40 : 0) + l3() - l4();
  const uint32_t rest = proto + static_cast<uint32_t>(size >> 16) + static_cast<uint16_t>(size);
  if (!v6) return naive_sum(&frame[l3() + 12], 8, rest);
  size_t destination = l3() + 24;
  size_t at = l3() + 40;
  for (uint8_t type : extensions) {
    if (type == kRouting) destination = at + 8;
    at += extension_size(type);
  }
  return naive_sum(&frame[destination], 16, naive_sum(&frame[l3() + 8], 16, rest));
}

bool FrameSpec::verify(const Bytes& frame) const {
  const size_t end = l3() + get16(frame, l3() + (v6 ? 4 : 2)) + (v6 ? 40 : 0);
  if (end > frame.size()) return false;
  if (!v6 && naive_sum(&frame[l3()], 20 + options_size) != 0xffff) return false;
  if (proto == 132) {
    Bytes datagram(frame.begin() + static_cast<ptrdiff_t>(l4()), frame.begin() + static_cast<ptrdiff_t>(end));
    uint32_t stored = 0;
    for (size_t i = 0; i < 4; ++i) stored |= uint32_t{datagram[8 + i]} << 8 * i;
    std::memset(&datagram[8], 0, 4);
    return stored == naive_crc32c(datagram.data(), datagram.size());
  }
  const uint16_t stored = get16(frame, l4() + checksum_offset());
  if (proto == 17 && !udp_checksum) return stored == 0;
  if (proto == 17 && stored == 0) return false;
  return naive_sum(&frame[l4()], end - l4(), pseudo_sum(frame)) == 0xffff;
}

FrameSpec FrameSpec::random(std::mt19937& rng) {
  const auto chance = [&rng](uint32_t one_in) { return rng() % one_in == 0; };
  FrameSpec spec;
  for (uint32_t n = rng() % 3; n > 0; --n) spec.vlans.push_back(chance(2) ? 0x8100 : 0x88a8);
  spec.v6 = chance(2);
  if (!spec.v6) spec.options_size = chance(3) ? rng() % 11 * 4 : 0;
  if (spec.v6) {
    for (uint8_t type : {0, 60, 43, 51}) {
      if (chance(4)) spec.extensions.push_back(static_cast<uint8_t>(type));
    }
  }
  const uint8_t protocols[] = {6, 17, 132, static_cast<uint8_t>(spec.v6 ? 58 : 1)};
  spec.proto = protocols[rng() % 4];
  spec.tcp_flags = static_cast<uint8_t>(rng());
  spec.udp_checksum = !chance(4);
  spec.neighbour = spec.proto == 58 && chance(2);
  spec.payload.resize(chance(3) ? rng() % 4 : rng() % 200);
  for (uint8_t& byte : spec.payload) byte = static_cast<uint8_t>(chance(2) ? rng() : 0xff);
  spec.padding = chance(3) ? rng() % 20 : 0;
  spec.seed = static_cast<uint32_t>(rng());
  return spec;
}

uint16_t naive_sum(const uint8_t* bytes, size_t size, uint32_t sum) {
  for (size_t i = 0; i < size; ++i) {
    sum += i % 2 == 0 ? uint32_t{bytes[i]} << 8 : bytes[i];
    sum = (sum & 0xffff) + (sum >> 16);
  }
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

uint32_t naive_crc32c(const uint8_t* bytes, size_t size) {
  uint32_t crc = 0xffffffff;
  for (size_t i = 0; i < size; ++i) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82f63b78 : 0);
  }
  return ~crc;
}

Bytes from_hex(const std::string& text) {
  Bytes bytes;
  std::string digits;
  std::copy_if(text.begin(), text.end(), std::back_inserter(digits), [](char c) { return c != ' '; });
  for (size_t i = 0; i + 1 < digits.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoul(digits.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::string to_hex(const Bytes& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

PacketPtr make_packet(PacketPool& pool, const Bytes& bytes, size_t headroom) {
  PacketPtr packet = pool.allocate(headroom);
  packet->set_size(bytes.size());
  std::copy(bytes.begin(), bytes.end(), packet->data());
  return packet;
}

Bytes bytes_of(const Packet& packet) { return {packet.data(), packet.data() + packet.size()}; }

size_t free_packets(PacketPool& pool) {
  std::vector<PacketPtr> all;
  while (PacketPtr packet = pool.allocate(0)) all.push_back(std::move(packet));
  return all.size();
}

}  // namespace vswitch
