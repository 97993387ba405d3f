#include "datapath/kernel_path/kernel_path.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <utility>

namespace vswitch {
namespace {

constexpr uint32_t kEthernetHeader = 14;
constexpr size_t kIpv4Header = 20;
constexpr uint32_t kUseBits = 30;  // of a connection's state

// Without its tag, which goes into the packet.
uint32_t longest_frame(const Encapsulation& encapsulation) {
  const auto before = static_cast<uint32_t>(encapsulation.header_size) - kEthernetHeader;
  return encapsulation.way.max_packet <= before ? 0 : encapsulation.way.max_packet - before;
}

// All but `state`, which is 0, and which a thread may look at that comes late to activate what the element was before.
void clear(kernel_connection& connection) {
  constexpr size_t kAfterState = offsetof(kernel_connection, state) + sizeof connection.state;
  connection.key = {};
  std::memset(reinterpret_cast<uint8_t*>(&connection) + kAfterState, 0, sizeof connection - kAfterState);
}

// What the kernel makes of the TOS that a socket sends with: the two bits that once asked for little delay and high
// throughput decide (SO_PRIORITY in socket(7), the table of the queueing discipline in tc-prio(8)).
uint32_t priority_of(uint8_t tos) {
  constexpr std::array<uint8_t, 4> kPriorities = {0, 2, 6, 4};  // best effort, bulk, interactive, interactive bulk
  return kPriorities[tos >> 3 & 3];
}

std::atomic_ref<uint32_t> state_of(kernel_connection& connection) { return std::atomic_ref(connection.state); }

template <typename T>
uint64_t read(T& counter) {
  return std::atomic_ref(counter).load(std::memory_order_relaxed);
}

}  // namespace

void KernelPath::Hook::set_mtu(uint32_t mtu) { path_.mtu_changed(id_, mtu); }
void KernelPath::Hook::close() { path_.closed(id_); }
std::string KernelPath::Hook::problem() const { return path_.problem_of(id_); }

// ---------------------------------------------------------------- devices

std::unique_ptr<KernelPath::Hook> KernelPath::hook(int socket, uint32_t ifindex, uint32_t mtu) {
  Device device;
  device.socket = socket;
  device.ifindex = ifindex;
  device.mtu = mtu;
  return make_hook(std::move(device));
}

std::unique_ptr<KernelPath::Hook> KernelPath::tunnel_hook() { return make_hook({}); }

std::unique_ptr<KernelPath::Hook> KernelPath::make_hook(Device device) {
  MutexLock lock(mutex_);
  const HookId id = ++last_id_;
  std::unique_ptr<Hook> hook(new Hook(*this, id));
  device.hook = hook.get();
  Device& entered = devices_[id] = std::move(device);
  if (enabled_) start(entered);
  return hook;
}

void KernelPath::load() {
  if (programs_ != nullptr || !load_problem_.empty()) return;
  Result<std::unique_ptr<KernelPrograms>> loaded = KernelPrograms::load();
  if (!loaded.ok()) {
    load_problem_ = loaded.status().message();
    return;
  }
  programs_ = std::move(*loaded);
  ways_.resize(kMaxConnections);
  free_.resize(kMaxConnections);
  for (uint32_t i = 0; i < kMaxConnections; ++i) free_[i] = static_cast<uint32_t>(kMaxConnections) - 1 - i;
}

// Of two ports on one device each is to have every frame, so only one may take frames from its socket.
bool KernelPath::has_other(const Device& device) const {
  return std::ranges::any_of(
      devices_, [&device](const auto& entry) { return entry.second.ifindex == device.ifindex && entry.second.link; });
}

void KernelPath::start(Device& device) {
  load();
  if (programs_ == nullptr || device.working()) return;
  device.problem.clear();
  device.hook->working_.store(true, std::memory_order_release);
  working_.fetch_add(1, std::memory_order_relaxed);
}

void KernelPath::end(HookId id, Device& device) {
  if (!device.working()) return;
  device.hook->working_.store(false, std::memory_order_release);
  working_.fetch_sub(1, std::memory_order_relaxed);
  stop_all(id, true);
  if (!device.link) return;
  programs_->remove_filter(device.socket);
  leftover_.push_back(std::move(device.link));
  on_news_();
}

Status KernelPath::attach(Device& device) {
  if (has_other(device)) return failed_precondition("another port has the same device");
  leftover_.clear();  // one may be of this device, which takes the program only once
  Result<UniqueFd> link = programs_->attach(device.socket, device.ifindex);
  if (link.ok()) device.link = std::move(*link);
  return link.status();
}

void KernelPath::clear_up() {
  std::vector<UniqueFd> links;
  MutexLock lock(mutex_);
  links.swap(leftover_);
}

void KernelPath::stop_all(HookId id, bool incoming) {
  if (free_.size() == ways_.size()) return;
  for (uint32_t element = 0; element < ways_.size(); ++element) {
    if (ways_[element].out == id || (incoming && ways_[element].in == id)) stop(element);
  }
}

void KernelPath::set_enabled(bool enabled) {
  MutexLock lock(mutex_);
  if (std::exchange(enabled_, enabled) == enabled) return;
  for (auto& [id, device] : devices_) {
    if (enabled) {
      start(device);
    } else {
      end(id, device);
    }
  }
}

void KernelPath::closed(HookId id) {
  MutexLock lock(mutex_);
  const auto it = devices_.find(id);
  if (it == devices_.end()) return;
  end(id, it->second);
  devices_.erase(it);
}

void KernelPath::give_up(HookId id, std::string reason) {
  MutexLock lock(mutex_);
  const auto it = devices_.find(id);
  if (it == devices_.end()) return;
  end(id, it->second);
  it->second.problem = std::move(reason);
}

std::string KernelPath::problem_of(HookId id) const {
  MutexLock lock(mutex_);
  const auto it = devices_.find(id);
  return it == devices_.end() ? "" : it->second.problem;
}

void KernelPath::mtu_changed(HookId id, uint32_t mtu) {
  MutexLock lock(mutex_);
  const auto it = devices_.find(id);
  if (it == devices_.end() || std::exchange(it->second.mtu, mtu) == mtu) return;
  stop_all(id, false);
}

std::string KernelPath::off_because() const {
  MutexLock lock(mutex_);
  if (!enabled_) return "switched off";
  if (!load_problem_.empty()) return load_problem_;
  const std::string* problem = nullptr;
  for (const auto& [id, device] : devices_) {
    if (device.working()) return "";
    if (!device.problem.empty()) problem = &device.problem;
  }
  return problem == nullptr ? "" : *problem;
}

// ---------------------------------------------------------------- connections

Status KernelPath::prepare(HookId in) {
  MutexLock lock(mutex_);
  const auto from = devices_.find(in);
  if (from == devices_.end() || !from->second.working()) {
    return failed_precondition("the device has no kernel path any more");
  }
  if (from->second.ifindex == 0) return failed_precondition("a tunnel is a way out only");
  if (from->second.link) return {};
  Status status = attach(from->second);
  if (!status.ok()) {
    end(in, from->second);
    from->second.problem = status.message();
  }
  return status;
}

void KernelPath::fill_in(kernel_connection& connection, kernel_encapsulation& headers,
                         const Encapsulation& encapsulation) {
  connection.out_ifindex = encapsulation.way.ifindex;
  connection.max_length = longest_frame(encapsulation);
  headers = {};
  std::memcpy(headers.header, encapsulation.header.data(), sizeof headers.header);
  headers.header_length = static_cast<uint32_t>(encapsulation.header_size);
  for (size_t i = 0; i < kIpv4Header; i += 2) {
    headers.ip_sum += load_unaligned<uint16_t>(encapsulation.header.data() + i);
  }
  headers.mark = encapsulation.flow.mark;
  headers.priority = priority_of(encapsulation.flow.tos);
  const IpAddress& next_hop = encapsulation.way.next_hop;
  headers.next_hop_family = next_hop.is_v6() ? AF_INET6 : AF_INET;
  if (next_hop.is_v6()) {
    std::memcpy(headers.next_hop, &next_hop.v6, sizeof next_hop.v6);
  } else {
    std::memcpy(headers.next_hop, &next_hop.v4, sizeof next_hop.v4);
  }
}

Result<KernelPath::Use> KernelPath::add(ConnectionKey key, HookId in, HookId out, const Encapsulation* encapsulation) {
  MutexLock lock(mutex_);
  const auto from = devices_.find(in), to = devices_.find(out);
  if (from == devices_.end() || to == devices_.end() || !from->second.working() || !to->second.working()) {
    return failed_precondition("a device has no kernel path any more");
  }
  if (!from->second.link) return failed_precondition("the device has not been prepared");
  if ((to->second.ifindex == 0) != (encapsulation != nullptr)) {
    return invalid_argument("what goes to a tunnel is encapsulated, and nothing else");
  }
  if (free_.empty()) return resource_exhausted("the kernel path's table is full");
  const uint32_t element = free_.back();
  key.in_ifindex = from->second.ifindex;
  kernel_connection& connection = at(element);
  clear(connection);
  connection.key = key;
  if (encapsulation != nullptr) {
    fill_in(connection, programs_->encapsulations()[element], *encapsulation);
  } else {
    connection.out_ifindex = to->second.ifindex;
    connection.max_length = to->second.mtu == 0 ? ~uint32_t{0} : to->second.mtu + kEthernetHeader;
  }
  std::atomic_thread_fence(std::memory_order_release);
  VSWITCH_RETURN_IF_ERROR(programs_->insert(key, element));
  free_.pop_back();
  ways_[element] = {in, out};
  if (++uses_ >= uint32_t{1} << kUseBits) uses_ = 1;
  const uint32_t state = uses_ << (32 - kUseBits) | (encapsulation != nullptr ? KERNEL_CONNECTION_ENCAPSULATED : 0);
  state_of(connection).store(state, std::memory_order_release);
  return Use{element, state};
}

void KernelPath::activate(const Use& use) {
  uint32_t pending = use.state;
  state_of(at(use.element)).compare_exchange_strong(pending, use.state | KERNEL_CONNECTION_ACTIVE);
}

void KernelPath::stop(uint32_t element) { state_of(at(element)).store(0); }

bool KernelPath::stopped(uint32_t element) const { return state_of(at(element)).load() == 0; }

KernelPath::Counts KernelPath::counts(uint32_t element) const {
  kernel_connection& c = at(element);
  return {.packets = read(c.packets),
          .bytes = read(c.bytes),
          .full = read(c.full),
          .failed = read(c.failed),
          .overruled = read(c.overruled),
          .lost_bytes = read(c.lost_bytes),
          .tcp_flags = static_cast<uint32_t>(read(c.tcp_flags))};
}

Nanoseconds KernelPath::used(uint32_t element) const {
  return Nanoseconds(static_cast<int64_t>(read(at(element).used)));
}

void KernelPath::erase(uint32_t element) { programs_->erase(at(element).key); }

void KernelPath::free(uint32_t element) {
  MutexLock lock(mutex_);
  ways_[element] = {};
  free_.push_back(element);
}

}  // namespace vswitch
