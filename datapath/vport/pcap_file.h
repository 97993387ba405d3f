// Files in pcap format (libpcap): reading all frames of one into memory, and writing frames to one.
#pragma once

#include <pcap/pcap.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "datapath/base/mutex.h"
#include "datapath/base/status.h"
#include "datapath/packet/packet_batch.h"

namespace vswitch {

// The frames of a pcap file. Immutable after loading.
class PcapFrames {
 public:
  // Frames start on cache lines, and whole lines may be read: copying goes by lines.
  static constexpr size_t kLine = 64;
  struct Frame {
    const uint8_t* data;
    uint32_t size;
  };

  // Fails when the file cannot be read, is not pcap, holds something other than Ethernet frames, or no frame at all.
  static Result<std::unique_ptr<PcapFrames>> load(const std::string& path);

  const std::vector<Frame>& frames() const { return frames_; }

 private:
  struct alignas(kLine) Line {
    uint8_t bytes[kLine];
  };
  Status read(pcap_t* file, const std::string& path);

  std::vector<Line> memory_;
  std::vector<Frame> frames_;
};

// Appends frames to a pcap file, which is made if it does not exist. Time stamps are the wall clock's. Thread-safe.
class PcapWriter {
 public:
  static Result<std::unique_ptr<PcapWriter>> open(const std::string& path);
  // Whether open() would succeed; makes and changes nothing.
  static Status check(const std::string& path);

  // Writes the frames from index `first` on and flushes them to the file. The first error is final: nothing is written
  // after it.
  Status write(const PacketBatch& batch, size_t first = 0) EXCLUDES(mutex_);
  Status error() const EXCLUDES(mutex_);
  const std::string& path() const { return path_; }

 private:
  struct Closer {
    void operator()(pcap_t* file) const { pcap_close(file); }
    void operator()(pcap_dumper_t* file) const { pcap_dump_close(file); }
  };
  PcapWriter(std::string path, std::unique_ptr<pcap_t, Closer> format, std::unique_ptr<pcap_dumper_t, Closer> dumper)
      : path_(std::move(path)), format_(std::move(format)), dumper_(std::move(dumper)) {}

  const std::string path_;
  mutable Mutex mutex_;
  const std::unique_ptr<pcap_t, Closer> format_;
  const std::unique_ptr<pcap_dumper_t, Closer> dumper_ PT_GUARDED_BY(mutex_);
  Status error_ GUARDED_BY(mutex_);
};

}  // namespace vswitch
