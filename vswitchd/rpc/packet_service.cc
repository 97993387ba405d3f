// PacketService: packet-out and packet-in. See proto/vswitch/v1/packet_service.proto.
#include <fmt/format.h>

#include <deque>

#include "vswitch/v1/packet_service.grpc.pb.h"
#include "vswitchd/rpc/proto_convert_rule.h"
#include "vswitchd/rpc/resource_names.h"
#include "vswitchd/rpc/service_context.h"

namespace vswitch {
namespace {

// Packet-ins that may wait for one client; more are lost and counted.
constexpr size_t kPacketInQueue = 1024;

using Base = v1::PacketService::WithCallbackMethod_PacketIO<v1::PacketService::Service>;

Status packet_out_from_text(const std::string& text, const FlowNames* names, PacketOut& out) {
  Result<ParsedPacketOut> parsed = parse_packet_out(text, names);
  if (!parsed.ok()) return Status(parsed.status().code(), parsed.status().message(), "text");
  uint32_t in_port = parsed->metadata.packet.in_port;
  out.in_port = static_cast<OfPort>(in_port);
  out.packet = std::move(parsed->packet);
  out.actions = std::move(parsed->actions);
  return {};
}

Status packet_out_from_fields(const v1::PacketOut& request, PacketOut& out) {
  if (request.has_in_port()) {
    if (request.in_port() > 0xffff) return invalid_argument("in_port is out of range: 0 to 65535", "in_port");
    out.in_port = static_cast<OfPort>(request.in_port());
  }
  out.packet.assign(request.packet().begin(), request.packet().end());
  Result<RuleActionList> actions = actions_from_proto(request.actions());
  if (!actions.ok()) return actions.status();
  out.actions = *std::move(actions);
  return {};
}

Status send_packet(ServiceContext& context, const v1::PacketOut& request) {
  PacketOut out;
  Result<std::string> bridge = bridge_name(request.bridge(), "bridge");
  if (!bridge.ok()) return bridge.status();
  out.bridge = *bridge;
  if (request.text().empty()) {
    VSWITCH_RETURN_IF_ERROR(packet_out_from_fields(request, out));
  } else {
    std::unique_ptr<FlowNames> names = port_names(context.sw, out.bridge);
    VSWITCH_RETURN_IF_ERROR(packet_out_from_text(request.text(), names.get(), out));
  }
  return context.sw.packet_out(out);
}

void packet_in_to_proto(const PacketIn& in, v1::PacketIn& out) {
  out.set_bridge(bridge_resource(in.bridge));
  out.set_packet(in.packet.data(), in.packet.size());
  out.set_total_size(in.total_size);
  out.set_reason(static_cast<v1::PacketInReason>(static_cast<int>(in.reason) + 1));
  out.set_table(in.table);
  out.set_cookie(in.cookie);
  out.set_controller_id(in.controller_id);
  out.set_in_port(in.metadata.packet.in_port);
  Match fields;
  fields.value = in.metadata;
  for (size_t i = 0; i < kPipelineKeyWords; ++i) {
    if (words(in.metadata)[i] != 0) words(fields.mask)[i] = ~uint64_t{0};
  }
  match_to_proto(fields, *out.mutable_metadata());
  out.mutable_metadata()->set_text(format_flow_key(in.metadata));
  out.set_userdata(in.userdata.data(), in.userdata.size());
}

// One PacketIO stream. gRPC deletes nothing before OnDone(), which comes after the last reaction; the subscription,
// whose callback writes here, ends there.
class PacketStream final : public grpc::ServerBidiReactor<v1::PacketIORequest, v1::PacketIOResponse> {
 public:
  PacketStream(ServiceContext& context, grpc::CallbackServerContext& call) : context_(context), call_(call) {
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      finish(grpc::Status::OK);  // the client has no more to say
      return;
    }
    Status status = handle();
    if (!status.ok()) {
      finish(to_grpc_status(status, call_));
      return;
    }
    StartRead(&request_);
  }

  void OnWriteDone(bool ok) override {
    Step step;
    {
      MutexLock lock(mutex_);
      writing_ = false;
      if (!ok) ended_ = true;
      step = next();
    }
    take(step);
  }

  void OnCancel() override { finish(grpc::Status::CANCELLED); }

  void OnDone() override {
    subscription_.reset();
    delete this;
  }

 private:
  enum class Step { none, write, finish };

  Status handle() {
    switch (request_.kind_case()) {
      case v1::PacketIORequest::kSubscribe:
        return subscribe(request_.subscribe());
      case v1::PacketIORequest::kPacketOut:
        return send_packet(context_, request_.packet_out());
      case v1::PacketIORequest::KIND_NOT_SET:
        break;
    }
    return invalid_argument("a request is `subscribe` or `packet_out`");
  }

  Status subscribe(const v1::Subscription& request) {
    Result<std::string> bridge = optional_bridge_name(request.bridge(), "subscribe.bridge");
    if (!bridge.ok()) return bridge.status();
    if (!bridge->empty()) VSWITCH_RETURN_IF_ERROR(context_.sw.bridge(*bridge).status());
    subscription_ = context_.sw.subscribe_packet_in(*bridge, [this](const PacketIn& packet) { deliver(packet); });
    v1::PacketIOResponse reply;
    reply.mutable_subscribed();
    push(std::move(reply));
    return {};
  }

  void deliver(const PacketIn& packet) {
    v1::PacketIOResponse reply;
    packet_in_to_proto(packet, *reply.mutable_packet_in());
    push(std::move(reply));
  }

  void push(v1::PacketIOResponse reply) {
    Step step;
    {
      MutexLock lock(mutex_);
      if (ended_) return;
      if (queue_.size() >= kPacketInQueue) {
        ++lost_;
        return;
      }
      if (reply.has_packet_in()) reply.mutable_packet_in()->set_lost(lost_);
      queue_.push_back(std::move(reply));
      step = next();
    }
    take(step);
  }

  void finish(grpc::Status status) {
    Step step;
    {
      MutexLock lock(mutex_);
      if (ended_) return;
      ended_ = true;
      status_ = std::move(status);
      queue_.clear();
      step = next();
    }
    take(step);
  }

  Step next() REQUIRES(mutex_) {
    if (finished_ || writing_) return Step::none;
    if (ended_) {
      finished_ = true;
      return Step::finish;
    }
    if (queue_.empty()) return Step::none;
    current_ = std::move(queue_.front());
    queue_.pop_front();
    writing_ = true;
    return Step::write;
  }

  void take(Step step) {
    if (step == Step::write) StartWrite(&current_);
    if (step == Step::finish) Finish(status_);
  }

  ServiceContext& context_;
  grpc::CallbackServerContext& call_;
  v1::PacketIORequest request_;
  std::shared_ptr<void> subscription_;  // changed by reactions only, which come one after the other
  Mutex mutex_;
  std::deque<v1::PacketIOResponse> queue_ GUARDED_BY(mutex_);
  v1::PacketIOResponse current_;  // of the write under way
  grpc::Status status_;
  uint64_t lost_ GUARDED_BY(mutex_) = 0;
  bool writing_ GUARDED_BY(mutex_) = false;
  bool ended_ GUARDED_BY(mutex_) = false;
  bool finished_ GUARDED_BY(mutex_) = false;
};

class PacketService final : public Base {
 public:
  explicit PacketService(ServiceContext& context) : context_(context) {}

  grpc::Status SendPacket(grpc::ServerContext* call, const v1::PacketOut* request, v1::SendPacketResponse*) override {
    return to_grpc_status(send_packet(context_, *request), *call);
  }

  grpc::ServerBidiReactor<v1::PacketIORequest, v1::PacketIOResponse>* PacketIO(
      grpc::CallbackServerContext* call) override {
    return new PacketStream(context_, *call);
  }

 private:
  ServiceContext& context_;
};

}  // namespace

std::unique_ptr<grpc::Service> make_packet_service(ServiceContext& context) {
  return std::make_unique<PacketService>(context);
}

}  // namespace vswitch
