#include "vswitchd/control/slow_path.h"

#include <algorithm>
#include <new>
#include <string_view>

#include "datapath/base/block_pool.h"
#include "datapath/base/rcu.h"
#include "datapath/flow/flow_mask.h"
#include "vswitchd/control/known_terms.h"

namespace vswitch {
namespace {

void mix(uint64_t& hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
  hash ^= hash >> 29;
}

// Identifies a request by content, in 32 bits: people read it as a recirculation id. 0 is kept free ("no cookie").
uint32_t content_hash(const ControllerRequest& request) {
  uint64_t hash = std::hash<std::string_view>{}(request.bridge);
  mix(hash, request.rule_cookie);
  mix(hash, request.table);
  mix(hash, uint64_t{request.action.max_len} << 32 | uint64_t{request.action.controller_id} << 8 |
                static_cast<uint64_t>(request.action.reason));
  for (const uint8_t byte : request.action.userdata) mix(hash, byte);
  const KeyWord* w = words(request.key);
  for (size_t i = 0; i < kPipelineKeyWords; ++i) mix(hash, w[i]);
  const auto folded = static_cast<uint32_t>(hash ^ hash >> 32);
  return folded == 0 ? 1 : folded;
}

bool same_request(const ControllerRequest& a, const ControllerRequest& b) {
  return a.bridge == b.bridge && a.rule_cookie == b.rule_cookie && a.table == b.table && a.action == b.action &&
         a.key == b.key;
}

}  // namespace

void ViewHolder::publish(std::unique_ptr<SwitchView> view) {
  const SwitchView* old = view_.exchange(view.release(), std::memory_order_acq_rel);
  rcu::retire([old] { delete old; });
}

// A collision: the next free number.
uint64_t ControllerRequests::cookie_of(const ControllerRequest& request) const {
  uint64_t cookie = content_hash(request);
  for (;; ++cookie) {
    auto it = by_cookie_.find(cookie);
    if (it == by_cookie_.end() || same_request(*it->second.request, request)) return cookie;
  }
}

uint64_t ControllerRequests::preview(const ControllerRequest& request) const {
  MutexLock lock(mutex_);
  return cookie_of(request);
}

uint64_t ControllerRequests::controller_cookie(const ControllerRequest& request) {
  MutexLock lock(mutex_);
  const uint64_t cookie = cookie_of(request);
  if (auto it = by_cookie_.find(cookie); it != by_cookie_.end()) {
    it->second.last_used = ++uses_;
    return cookie;
  }
  if (by_cookie_.size() >= kMaxRequests) evict_oldest();
  by_cookie_[cookie] = {std::make_shared<const ControllerRequest>(request), ++uses_};
  return cookie;
}

// Throws out the older half at once, so that a full table does not scan for each new request.
void ControllerRequests::evict_oldest() {
  std::vector<uint64_t> ages;
  ages.reserve(by_cookie_.size());
  for (const auto& [cookie, entry] : by_cookie_) ages.push_back(entry.last_used);
  const auto middle = ages.begin() + static_cast<ptrdiff_t>(ages.size() / 2);
  std::nth_element(ages.begin(), middle, ages.end());
  std::erase_if(by_cookie_, [limit = *middle](const auto& item) { return item.second.last_used < limit; });
}

std::shared_ptr<const ControllerRequest> ControllerRequests::find(uint64_t cookie) const {
  MutexLock lock(mutex_);
  auto it = by_cookie_.find(cookie);
  if (it == by_cookie_.end()) return nullptr;
  it->second.last_used = ++uses_;
  return it->second.request;
}

TraceContexts::~TraceContexts() {
  // The latest first: so all of their numbers go back.
  for (auto ref = recircs_.rbegin(); ref != recircs_.rend(); ++ref) contexts_.recircs.forget(std::move(*ref));
}

uint64_t TraceContexts::controller_cookie(const ControllerRequest& request) {
  const uint64_t cookie = contexts_.requests.preview(request);
  requests_.insert_or_assign(cookie, std::make_shared<const ControllerRequest>(request));
  return cookie;
}

RecircRef TraceContexts::freeze(FrozenState state) {
  RecircRef ref = contexts_.recircs.freeze_for_trace(std::move(state));
  if (ref != nullptr) recircs_.push_back(ref);
  return ref;
}

MissResult SlowPath::miss(const FlowKey& key, const Packet&) {
  const SwitchView& view = views_.get();
  TranslateInput input{.view = view, .key = key};
  input.contexts = &contexts_;
  input.way_only = true;
  // Of a thread, since it is what makes up most of a translation's memory, and what flows share is counted by one
  // thread only: several that count the same would wait for each other.
  struct Workplace {
    TranslateOutput output;
    KnownTerms known;
  };
  thread_local Workplace place;
  TranslateOutput& output = place.output;
  translate(input, output);
  if (output.addresses_changed) learned_();
  if (output.actions.empty()) output.actions.push_back(DropAction{output.drop_reason});

  const uint16_t bits = FlowOrigin::bits_of(output);
  note_bits(bits);
  KnownTerms::Shared shared = place.known.share(output);
  MissResult result{.actions = std::move(shared.actions),
                    .mask = output.mask,
                    .install = !output.slow_path,
                    .installer_data = std::allocate_shared<FlowOrigin>(BlockAllocator<FlowOrigin>(),
                                                                       std::move(shared.terms), view.generation),
                    .installer_bits = bits};
  output.clear();  // nothing is to be kept alive here
  return result;
}

void SlowPath::prepare() {
  constexpr size_t kBytes = size_t{1} << 20;  // for some ten thousand flows
  BlockPool* const pool = BlockPoolOf<FlowOrigin>::pool.load(std::memory_order_acquire);
  if (pool == nullptr) return;
  try {
    pool->prepare(kBytes);
  } catch (const std::bad_alloc&) {
    // All that is missing is a reserve.
  }
}

void SlowPath::uncounted(const std::shared_ptr<void>& installer_data, uint64_t packets, uint64_t bytes) {
  const auto& origin = *static_cast<const FlowOrigin*>(installer_data.get());
  origin.terms->credit.count(packets, bytes, clock_.now());
}

std::optional<DropReason> SlowPath::controller(const UserspaceAction& action, const FlowKey&, const Packet& packet) {
  if (packet_ins_.empty()) return DropReason::no_controller;
  const std::shared_ptr<const ControllerRequest> request = contexts_.requests.find(action.cookie);
  if (!request) return DropReason::userspace_action_error;
  PacketIn packet_in;
  packet_in.bridge = request->bridge;
  packet_in.total_size = static_cast<uint32_t>(packet.size());
  const size_t size = std::min<size_t>(packet.size(), action.max_len == 0 ? packet.size() : action.max_len);
  packet_in.packet.assign(packet.data(), packet.data() + size);
  packet_in.reason = request->action.reason;
  packet_in.table = request->table;
  packet_in.cookie = request->rule_cookie;
  packet_in.controller_id = request->action.controller_id;
  packet_in.metadata = request->key;
  packet_in.userdata = request->action.userdata;
  Delivery delivery;
  packet_ins_.deliver(packet_in, delivery);
  if (delivery.taken) return std::nullopt;
  return delivery.listeners != 0 ? DropReason::controller_queue_full : DropReason::no_controller;
}

}  // namespace vswitch
