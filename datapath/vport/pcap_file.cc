#include "datapath/vport/pcap_file.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace vswitch {
namespace {

constexpr int kSnapLength = 262144;  // what tcpdump uses; no frame of ours is longer

Status file_error(const std::string& path, const std::string& why) {
  // libpcap repeats the path in some messages and not in others.
  return failed_precondition(why.find(path) != std::string::npos ? why : fmt::format("{}: {}", path, why));
}

}  // namespace

Result<std::unique_ptr<PcapFrames>> PcapFrames::load(const std::string& path) {
  std::array<char, PCAP_ERRBUF_SIZE> why{};
  const std::unique_ptr<pcap_t, decltype(&pcap_close)> file(pcap_open_offline(path.c_str(), why.data()), pcap_close);
  if (!file) return file_error(path, why.data());
  if (const int type = pcap_datalink(file.get()); type != DLT_EN10MB) {
    const char* name = pcap_datalink_val_to_name(type);
    return file_error(path, fmt::format("holds {} frames, not Ethernet", name != nullptr ? name : "unknown"));
  }
  std::unique_ptr<PcapFrames> frames(new PcapFrames);
  VSWITCH_RETURN_IF_ERROR(frames->read(file.get(), path));
  if (frames->frames_.empty()) return file_error(path, "holds no frames");
  return frames;
}

Status PcapFrames::read(pcap_t* file, const std::string& path) {
  std::vector<std::pair<size_t, uint32_t>> places;  // first line and size; the memory still moves
  pcap_pkthdr* header = nullptr;
  const uint8_t* data = nullptr;
  int result = 0;
  while ((result = pcap_next_ex(file, &header, &data)) == 1) {
    if (header->caplen == 0) continue;
    const size_t first = memory_.size();
    memory_.resize(first + (header->caplen + kLine - 1) / kLine);
    std::memcpy(memory_[first].bytes, data, header->caplen);
    places.emplace_back(first, header->caplen);
  }
  if (result != PCAP_ERROR_BREAK) return file_error(path, pcap_geterr(file));
  frames_.reserve(places.size());
  for (const auto& [first, size] : places) frames_.push_back({memory_[first].bytes, size});
  return {};
}

Result<std::unique_ptr<PcapWriter>> PcapWriter::open(const std::string& path) {
  std::unique_ptr<pcap_t, Closer> format(pcap_open_dead(DLT_EN10MB, kSnapLength));
  if (!format) return resource_exhausted("no memory for a pcap file");
  std::unique_ptr<pcap_dumper_t, Closer> dumper(pcap_dump_open_append(format.get(), path.c_str()));
  if (!dumper) return file_error(path, pcap_geterr(format.get()));
  return std::unique_ptr<PcapWriter>(new PcapWriter(path, std::move(format), std::move(dumper)));
}

Status PcapWriter::check(const std::string& path) {
  struct stat file {};
  if (::stat(path.c_str(), &file) != 0) {
    if (errno != ENOENT) return file_error(path, std::generic_category().message(errno));
    const size_t slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    if (::access(directory.c_str(), W_OK | X_OK) == 0) return {};
    return file_error(path, std::generic_category().message(errno));
  }
  if (S_ISDIR(file.st_mode)) return file_error(path, std::generic_category().message(EISDIR));
  if (::access(path.c_str(), W_OK) != 0) return file_error(path, std::generic_category().message(errno));
  if (!S_ISREG(file.st_mode) || file.st_size == 0) return {};
  // Frames are appended to a file of the same kind only.
  std::array<char, PCAP_ERRBUF_SIZE> why{};
  const std::unique_ptr<pcap_t, Closer> content(pcap_open_offline(path.c_str(), why.data()));
  if (!content) return file_error(path, why.data());
  if (pcap_datalink(content.get()) == DLT_EN10MB) return {};
  return file_error(path, "holds frames other than Ethernet");
}

Status PcapWriter::write(const PacketBatch& batch, size_t first) {
  MutexLock lock(mutex_);
  if (!error_.ok()) return error_;
  pcap_pkthdr header{};
  ::gettimeofday(&header.ts, nullptr);
  for (size_t i = first; i < batch.size(); ++i) {
    header.caplen = header.len = static_cast<uint32_t>(batch[i].size());
    pcap_dump(reinterpret_cast<u_char*>(dumper_.get()), &header, batch[i].data());
  }
  if (pcap_dump_flush(dumper_.get()) != 0) {
    error_ = file_error(path_, "cannot write: " + std::generic_category().message(errno));
  }
  return error_;
}

Status PcapWriter::error() const {
  MutexLock lock(mutex_);
  return error_;
}

}  // namespace vswitch
