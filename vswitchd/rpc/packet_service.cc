// PacketService: packet-out and packet-in. See proto/vswitch/v1/packet_service.proto.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <span>

#include "datapath/flow/extract.h"
#include "datapath/flow/field.h"
#include "datapath/packet/packet_pool.h"
#include "vswitch/v1/packet_service.grpc.pb.h"
#include "vswitchd/rpc/proto_convert_rule.h"
#include "vswitchd/rpc/resource_names.h"
#include "vswitchd/rpc/service_context.h"
#include "vswitchd/rpc/stream_reactors.h"

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

// Fields that say nothing about the packet: the datapath's own, the rules' own, and other views of the registers.
bool is_internal(FieldId id) {
  return id == FieldId::kRecircId || id == FieldId::kDpHash || id == FieldId::kConjId || id == FieldId::kActsetOutput ||
         (id >= FieldId::kXreg0 && id <= FieldId::kXreg7) || (id >= FieldId::kXxreg0 && id <= FieldId::kXxreg3);
}

// The metadata that is not zero.
Match metadata_of(const PipelineKey& key) {
  Match out;
  for (const Field& field : all_fields()) {
    if (field.has_place() && !is_internal(field.id) && read_field(field, key) != FieldValue()) {
      mark_field(field, out.mask);
    }
  }
  out.value = masked(key, out.mask);
  return out;
}

// The headers of a frame in flow syntax; "" if it is too short to have any.
std::string headers_of(std::span<const uint8_t> frame) {
  HeapPacketPool pool(HeapPacketPool::kSuperFrameBuffer, 1);
  PacketPtr packet = pool.allocate();
  if (frame.size() > packet->tailroom()) return "";
  packet->set_size(frame.size());
  std::copy(frame.begin(), frame.end(), packet->data());
  PipelineKey key;
  return extract_flow_key(*packet, key.packet) ? format_flow_key(key) : "";
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
  const Match metadata = metadata_of(in.metadata);
  match_to_proto(metadata, *out.mutable_metadata());
  out.mutable_metadata()->set_text(format_match(metadata));
  out.set_flow(headers_of(in.packet));
  out.set_userdata(in.userdata.data(), in.userdata.size());
}

// One PacketIO stream. gRPC deletes nothing before OnDone(), which comes after the last reaction; the subscription,
// whose callback writes here, ends there.
class PacketStream final
    : public WriteQueue<grpc::ServerBidiReactor<v1::PacketIORequest, v1::PacketIOResponse>, v1::PacketIOResponse> {
 public:
  PacketStream(ServiceContext& context, grpc::CallbackServerContext& call)
      : WriteQueue(kPacketInQueue, /*open=*/true), context_(context), call_(call) {
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

  void OnDone() override {
    subscription_.reset();
    delete this;
  }

 private:
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
    subscription_ =
        context_.sw.subscribe_packet_in(*bridge, [this](const PacketIn& packet) { return deliver(packet); });
    v1::PacketIOResponse reply;
    reply.mutable_subscribed();
    enqueue(std::move(reply));
    return {};
  }

  bool deliver(const PacketIn& packet) {
    v1::PacketIOResponse reply;
    packet_in_to_proto(packet, *reply.mutable_packet_in());
    reply.mutable_packet_in()->set_lost(lost_);
    if (enqueue(std::move(reply))) return true;
    ++lost_;
    return false;
  }

  ServiceContext& context_;
  grpc::CallbackServerContext& call_;
  v1::PacketIORequest request_;
  std::shared_ptr<void> subscription_;  // changed by reactions only, which come one after the other
  std::atomic<uint64_t> lost_{0};
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
