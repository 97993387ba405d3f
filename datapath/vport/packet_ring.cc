#include "datapath/vport/packet_ring.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>

#include "datapath/base/byte_order.h"

namespace vswitch {
namespace {

constexpr size_t kBlock = 64 << 10;  // memory that the kernel takes in one piece
constexpr size_t kFewestSlots = kBlock / PacketRing::kSlotSize;
constexpr size_t kPrefetchAhead = 4;

std::atomic_ref<uint32_t> status_of(uint8_t* slot) {
  return std::atomic_ref(reinterpret_cast<tpacket2_hdr*>(slot)->tp_status);
}

// A frame begins so far behind its slot's header and address that its IP header is aligned, with the vnet header in
// front of it.
constexpr size_t frame_offset() { return TPACKET_ALIGN(TPACKET2_HDRLEN + 16) + sizeof(VnetHeader) - ETH_HLEN; }
static_assert(frame_offset() + PacketRing::kMaxInSlot == PacketRing::kSlotSize);

bool set_up(int fd, size_t slots) {
  tpacket_req request{};
  request.tp_block_size = kBlock;
  request.tp_block_nr = static_cast<unsigned>(slots * PacketRing::kSlotSize / kBlock);
  request.tp_frame_size = PacketRing::kSlotSize;
  request.tp_frame_nr = static_cast<unsigned>(slots);
  return ::setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof request) == 0;
}

}  // namespace

std::unique_ptr<PacketRing> PacketRing::map(int fd) {
  const int version = TPACKET_V2, queue_large = 1;
  if (::setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version) != 0 ||
      ::setsockopt(fd, SOL_PACKET, PACKET_COPY_THRESH, &queue_large, sizeof queue_large) != 0) {
    return nullptr;
  }
  size_t slots = kSlots;
  while (!set_up(fd, slots)) {
    if (errno != ENOMEM || slots == kFewestSlots) return nullptr;
    slots /= 2;
  }
  void* memory = ::mmap(nullptr, slots * kSlotSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (memory == MAP_FAILED) return nullptr;
  return std::unique_ptr<PacketRing>(new PacketRing(static_cast<uint8_t*>(memory), slots));
}

PacketRing::~PacketRing() { ::munmap(memory_, slots_ * kSlotSize); }

bool PacketRing::has_frames() const {
  return (status_of(slot(0)).load(std::memory_order_acquire) & TP_STATUS_USER) != 0;
}

bool PacketRing::look(size_t n, Slot* slot) const {
  uint8_t* const at = this->slot(n);
  const uint32_t status = status_of(at).load(std::memory_order_acquire);
  if ((status & TP_STATUS_USER) == 0) return false;
  const uint8_t* const ahead = this->slot(n + kPrefetchAhead);
  __builtin_prefetch(ahead);
  __builtin_prefetch(ahead + 64);
  const auto& header = *reinterpret_cast<const tpacket2_hdr*>(at);
  slot->tpid = slot->tci = 0;
  if ((status & TP_STATUS_VLAN_VALID) != 0) {
    slot->tpid = (status & TP_STATUS_VLAN_TPID_VALID) != 0 ? header.tp_vlan_tpid : uint16_t{ETH_P_8021Q};
    slot->tci = header.tp_vlan_tci;
  }
  slot->size = header.tp_len;
  slot->frame = {};
  if ((status & TP_STATUS_COPY) != 0) {
    slot->where = Slot::Where::queued;
  } else if (header.tp_snaplen != header.tp_len || size_t{header.tp_mac} + header.tp_len > kSlotSize) {
    slot->where = Slot::Where::lost;
  } else {
    slot->where = Slot::Where::here;
    slot->frame = {at + header.tp_mac, header.tp_len};
    slot->header = load_unaligned<VnetHeader>(slot->frame.data() - sizeof(VnetHeader));
  }
  return true;
}

void PacketRing::give_back(size_t count) {
  for (size_t i = 0; i < count; ++i) status_of(slot(i)).store(TP_STATUS_KERNEL, std::memory_order_release);
  next_ += count;
}

}  // namespace vswitch
