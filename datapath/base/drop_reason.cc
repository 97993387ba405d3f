#include "datapath/base/drop_reason.h"

namespace vswitch {

std::string_view drop_reason_name(DropReason reason) {
  switch (reason) {
#define VSWITCH_DROP(name, text) \
  case DropReason::name:         \
    return #name;
    VSWITCH_DROP_REASONS(VSWITCH_DROP)
#undef VSWITCH_DROP
  }
  return "unknown";
}

std::string_view drop_reason_text(DropReason reason) {
  switch (reason) {
#define VSWITCH_DROP(name, text) \
  case DropReason::name:         \
    return text;
    VSWITCH_DROP_REASONS(VSWITCH_DROP)
#undef VSWITCH_DROP
  }
  return "unknown";
}

}  // namespace vswitch
