// Two ways of handing frames with vnet headers to a device by a packet socket: messages (sendmmsg), as DeviceIo does,
// and a mapped transmit ring (TPACKET_V2). Each frame comes in a buffer of its own, and is copied from there once, by
// the kernel or into the ring; what becomes of the ring's pages then is up to the device. It is one end of a veth pair
// in a namespace of the program's own, at whose other end nobody wants the frames.
#include <benchmark/benchmark.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "datapath/base/unique_fd.h"
#include "datapath/vport/vnet_header.h"
#include "tests/support/netns.h"
#include "tests/support/packet_builder.h"

namespace vswitch {
namespace {

constexpr const char* kDevice = "send0";
constexpr size_t kBatch = 32;
constexpr size_t kHeaders = 14 + 20 + 20;
constexpr uint16_t kSegment = 1448;

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

void check(int result, const char* what) {
  if (result < 0) fail(what);
}

UniqueFd open_socket() {
  UniqueFd fd(::socket(AF_PACKET, SOCK_RAW, 0));
  const int on = 1;
  check(fd.get(), "socket");
  check(::setsockopt(fd.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on), "PACKET_VNET_HDR");
  return fd;
}

void bind_to_device(int fd) {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_ifindex = static_cast<int>(::if_nametoindex(kDevice));
  check(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), "bind");
}

// A TCP segment of `size` bytes behind its vnet header; the kernel may cut it.
std::vector<uint8_t> make_frame(size_t size) {
  VnetHeader header;
  if (size > ETH_FRAME_LEN) {
    header.flags = VnetHeader::kNeedsChecksum;
    header.gso_type = VnetHeader::kGsoTcp4;
    header.hdr_len = kHeaders;
    header.gso_size = kSegment;
    header.csum_start = 34;
    header.csum_offset = 16;
  }
  const test::Bytes packet = test::PacketBuilder()
                                 .ethernet("02:00:00:00:00:01", "02:00:00:00:00:02")
                                 .ipv4("10.0.0.1", "10.0.0.2")
                                 .tcp(1, 2)
                                 .payload(size - kHeaders)
                                 .build();
  std::vector<uint8_t> frame(sizeof header + packet.size());
  std::memcpy(frame.data(), &header, sizeof header);
  std::memcpy(frame.data() + sizeof header, packet.data(), packet.size());
  return frame;
}

class Messages {
 public:
  explicit Messages(size_t) : fd_(open_socket()) { bind_to_device(fd_.get()); }

  void send(const std::array<std::vector<uint8_t>, kBatch>& frames) {
    std::array<mmsghdr, kBatch> messages{};
    std::array<iovec, kBatch> parts;
    for (size_t i = 0; i < kBatch; ++i) {
      parts[i] = {const_cast<uint8_t*>(frames[i].data()), frames[i].size()};
      messages[i].msg_hdr.msg_iov = &parts[i];
      messages[i].msg_hdr.msg_iovlen = 1;
    }
    for (size_t sent = 0; sent < kBatch;) {
      const int n = ::sendmmsg(fd_.get(), messages.data() + sent, static_cast<unsigned>(kBatch - sent), 0);
      if (n < 0 && errno != ENOBUFS) fail("sendmmsg");
      sent += static_cast<size_t>(std::max(n, 0));
    }
  }

 private:
  UniqueFd fd_;
};

class Ring {
 public:
  static constexpr size_t kSlots = 2 * kBatch;

  explicit Ring(size_t frame_size) : slot_size_(frame_size > ETH_FRAME_LEN ? 128 << 10 : 2 << 10), fd_(open_socket()) {
    const int version = TPACKET_V2;
    check(::setsockopt(fd_.get(), SOL_PACKET, PACKET_VERSION, &version, sizeof version), "PACKET_VERSION");
    tpacket_req request{};
    request.tp_frame_size = static_cast<unsigned>(slot_size_);
    request.tp_frame_nr = kSlots;
    request.tp_block_size = 128 << 10;
    request.tp_block_nr = static_cast<unsigned>(kSlots * slot_size_ / request.tp_block_size);
    check(::setsockopt(fd_.get(), SOL_PACKET, PACKET_TX_RING, &request, sizeof request), "PACKET_TX_RING");
    void* memory =
        ::mmap(nullptr, kSlots * slot_size_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_.get(), 0);
    if (memory == MAP_FAILED) fail("mmap");
    memory_ = static_cast<uint8_t*>(memory);
    bind_to_device(fd_.get());
  }
  ~Ring() { ::munmap(memory_, kSlots * slot_size_); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  void send(const std::array<std::vector<uint8_t>, kBatch>& frames) {
    for (const std::vector<uint8_t>& frame : frames) {
      uint8_t* const slot = memory_ + next_ * slot_size_;
      auto& header = *reinterpret_cast<tpacket2_hdr*>(slot);
      const std::atomic_ref<uint32_t> status(header.tp_status);
      while (const uint32_t now = status.load(std::memory_order_acquire)) {
        if ((now & TP_STATUS_WRONG_FORMAT) != 0) throw std::runtime_error("the kernel does not take such frames");
        flush();
      }
      header.tp_len = static_cast<uint32_t>(frame.size());
      std::memcpy(slot + TPACKET2_HDRLEN - sizeof(sockaddr_ll), frame.data(), frame.size());
      status.store(TP_STATUS_SEND_REQUEST, std::memory_order_release);
      next_ = (next_ + 1) % kSlots;
    }
    flush();
  }

 private:
  void flush() {
    if (::send(fd_.get(), nullptr, 0, MSG_DONTWAIT) < 0 && errno != EAGAIN && errno != ENOBUFS) fail("send");
  }

  const size_t slot_size_;
  UniqueFd fd_;
  uint8_t* memory_ = nullptr;
  size_t next_ = 0;
};

template <typename Way>
void BM_Send(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  std::array<std::vector<uint8_t>, kBatch> frames;
  frames.fill(make_frame(size));
  Way way(size);
  for (auto _ : state) way.send(frames);
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kBatch));
  state.SetBytesProcessed(state.items_processed() * state.range(0));
}
BENCHMARK_TEMPLATE(BM_Send, Messages)->Arg(64)->Arg(1500)->Arg(kHeaders + 44 * kSegment);
BENCHMARK_TEMPLATE(BM_Send, Ring)->Arg(64)->Arg(1500)->Arg(kHeaders + 44 * kSegment);

}  // namespace
}  // namespace vswitch

int main(int argc, char** argv) {
  using namespace vswitch::test;
  PrivateNamespace().SetUp();
  if (!PrivateNamespace::failure().empty()) {
    std::fprintf(stderr, "packet_send_bench: needs a network namespace: %s\n", PrivateNamespace::failure().c_str());
    return 1;
  }
  add_veth(vswitch::kDevice, "send1");
  wait_for_link(vswitch::kDevice);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
