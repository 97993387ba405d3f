#include "tests/support/fake_vport_host.h"

#include "datapath/vport/vport_registry.h"
#include "tests/support/netns.h"

namespace vswitch::test {

VportBench::VportBench(std::unique_ptr<LinkMonitor> links, size_t buffer_size, size_t packet_count,
                       std::unique_ptr<TunnelEndpoints> tunnels)
    : tunnels_(tunnels ? std::move(tunnels) : std::make_unique<NoTunnels>()),
      links_(links ? std::move(links) : std::make_unique<NoLinks>()),
      pool_(buffer_size, packet_count),
      environment_{host_, *links_, *tunnels_, clock_} {}

Result<std::unique_ptr<Vport>> VportBench::create(const VportConfig& config, uint32_t port_no, bool must_work) {
  const VportType* type = find_vport_type(config.type);
  if (type == nullptr) return not_found("no such port type: " + config.type);
  VSWITCH_RETURN_IF_ERROR(type->validate(config));
  auto port = type->create(config, port_no, environment_, must_work);
  if (port.ok()) (*port)->start_receiving();
  return port;
}

PacketBatch VportBench::receive(Vport& port) {
  PacketBatch batch;
  for (const auto& source : port.sources()) {
    if (!batch.full()) source->receive(ctx_, batch);
  }
  for (size_t i = 0; i < batch.size(); ++i) ledger_.port(batch[i].in_port).received.add();
  rcu::quiescent();
  return batch;
}

PacketBatch VportBench::wait_for_frames(Vport& port) {
  PacketBatch batch;
  eventually([&] {
    batch = receive(port);
    return !batch.empty();
  });
  return batch;
}

bool VportBench::until(const std::function<bool()>& condition) {
  return eventually([&] {
    rcu::quiescent();
    return condition();
  });
}

void VportBench::send(Vport& port, PacketPtr packet) {
  PacketBatch batch;
  batch.add(std::move(packet));
  port.send(ctx_, batch);
  rcu::quiescent();
}

size_t VportBench::forward(Vport& from, Vport& to) {
  PacketBatch batch = receive(from);
  const size_t count = batch.size();
  if (count != 0) to.send(ctx_, batch);
  rcu::quiescent();
  return count;
}

uint64_t VportBench::dropped(uint32_t port_no, DropReason reason) const {
  const PortBooks* books = ledger_.find(port_no);
  return books == nullptr ? 0 : books->dropped[static_cast<size_t>(reason)].get();
}

uint64_t VportBench::sent(uint32_t port_no) const {
  const PortBooks* books = ledger_.find(port_no);
  return books == nullptr ? 0 : books->sent.get();
}

int64_t VportBench::balance(uint32_t port_no) const {
  const PortBooks* books = ledger_.find(port_no);
  if (books == nullptr) return 0;
  uint64_t out = books->sent.get() + books->consumed.get();
  for (const Counter& reason : books->dropped) out += reason.get();
  return static_cast<int64_t>(books->received.get() + books->injected.get() + books->copies.get() - out);
}

}  // namespace vswitch::test
