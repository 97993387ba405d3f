#include "datapath/vport/vport_registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "datapath/vport/afxdp/vport_afxdp.h"
#include "datapath/vport/dpdk/vport_dpdk.h"
#include "datapath/vport/vport_dummy.h"
#include "datapath/vport/vport_internal.h"
#include "datapath/vport/vport_netdev.h"
#include "datapath/vport/vport_pcap.h"
#include "datapath/vport/vport_vxlan.h"

namespace vswitch {
namespace {

// The number of insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before_last, last(b.size() + 1), row(b.size() + 1);
  std::iota(last.begin(), last.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replace = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, replace});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
    before_last = last;
    last = row;
  }
  return last[b.size()];
}

std::string join(std::span<const std::string_view> words) {
  std::string text;
  for (std::string_view word : words) text.append(text.empty() ? "" : ", ").append(word);
  return text;
}

}  // namespace

std::span<const VportType> vport_types() {
  static const std::vector<VportType> types = {
      // One line per type; each is declared in the type's own header.
      // clang-format off
      kNetdevVportType,
      kInternalVportType,
      kVxlanVportType,
      kDummyVportType,
      kPcapVportType,
      kDpdkVportType,
      kAfxdpVportType,
      // clang-format on
  };
  return types;
}

const VportType* find_vport_type(std::string_view name) {
  if (name.empty() || name == "system") name = "netdev";
  for (const VportType& type : vport_types()) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

std::string_view nearest_spelling(std::string_view word, std::span<const std::string_view> known) {
  std::string_view nearest;
  // A third of the word may be wrong, but not so much that anything matches a short word.
  size_t best = std::max<size_t>(1, word.size() / 3) + 1;
  for (std::string_view candidate : known) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

Status check_known_options(const VportConfig& config, std::span<const std::string_view> known) {
  const std::string type = config.type.empty() ? "netdev" : config.type;
  for (const auto& [option, value] : config.options) {
    if (std::find(known.begin(), known.end(), option) != known.end()) continue;
    std::string message = fmt::format("port {}: unknown option \"{}\" for type {}", config.name, option, type);
    if (const std::string_view nearest = nearest_spelling(option, known); !nearest.empty()) {
      message += fmt::format("; did you mean \"{}\"?", nearest);
    } else if (known.empty()) {
      message += "; this type takes no options";
    } else {
      message += fmt::format("; known are: {}", join(known));
    }
    return invalid_argument(std::move(message), "options:" + option);
  }
  return {};
}

}  // namespace vswitch
