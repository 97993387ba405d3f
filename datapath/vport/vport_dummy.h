// The "dummy" port type: a port without a device, for tests and for looking at what rules do. Frames are injected by
// `dpctl receive`; what the port sends is counted and, if asked for, captured.
//
// Options:
//   pcap=FILE, tx_pcap=FILE        appends what the port sends, as it would be on a wire: checksums complete,
//   super-frames
//                                  cut. (Both names mean the same; give one.)
//   rx_pcap=FILE, rxq_pcap=FILE    appends what is injected
//   link_state=up|down             carrier; a port without carrier neither sends nor receives. Default: up
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "datapath/base/mutex.h"
#include "datapath/vport/pcap_file.h"
#include "datapath/vport/vport.h"
#include "datapath/vport/vport_counters.h"

namespace vswitch {

extern const VportType kDummyVportType;

class DummyVport final : public Vport {
 public:
  static constexpr size_t kMaxWaiting = 4096;  // frames injected and not yet received
  static constexpr uint32_t kDefaultMtu = 1500;

  static Result<std::unique_ptr<Vport>> create(const VportConfig& config, uint32_t port_no,
                                               VportEnvironment& environment, bool must_work);
  ~DummyVport() override;

  // Lets frames arrive at the port, in order: all of them or, on error (port down, too many waiting), none. Any thread.
  Status inject(std::span<const std::vector<uint8_t>> frames);

  std::string_view type() const override { return "dummy"; }
  void send(ThreadContext& ctx, PacketBatch& batch) override;
  std::vector<std::shared_ptr<RxSource>> sources() override;
  VportState state() const override;
  VportStats stats() const override;
  Status reconfigure(const VportConfig& config) override;
  Status set_admin_up(bool up) override;

 private:
  class Source;
  DummyVport(const VportConfig& config, uint32_t port_no, VportEnvironment& environment);

  bool usable() const { return admin_up_.load() && link_up_.load() && open_.load(); }
  void apply(const VportConfig& config);
  // Sends frames in wire form.
  void deliver(ThreadContext& ctx, PacketBatch& frames, VportCounters::Slot& counters);

  VportHost& host_;
  const std::shared_ptr<Source> source_;
  std::atomic<bool> admin_up_{true};
  std::atomic<bool> link_up_{true};
  std::atomic<bool> open_{true};  // false: a capture file could not be opened
  std::atomic<uint32_t> mtu_{kDefaultMtu};
  std::atomic<uint64_t> link_resets_{0};

  mutable Mutex mutex_;
  VportConfig config_ GUARDED_BY(mutex_);
  std::string open_error_ GUARDED_BY(mutex_);
  bool write_error_told_ GUARDED_BY(mutex_) = false;
  std::shared_ptr<PcapWriter> capture_ GUARDED_BY(mutex_);
};

}  // namespace vswitch
