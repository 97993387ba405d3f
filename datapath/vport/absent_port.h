// Ports of a type that this build lacks, because a library was not there: the type is known and its options are
// checked, so that configurations can be written anywhere, and no port of it works.
#pragma once

#include <memory>
#include <string_view>

#include "datapath/base/status.h"
#include "datapath/vport/vport.h"

namespace vswitch {

// VportType::create for such types. With `must_work` the error; else (the daemon starts with a configuration that
// another build made) a port that is in error and drops what is sent to it as `port_down`. `lacks`: "X (package, ...)".
Result<std::unique_ptr<Vport>> create_absent_port(const VportConfig& config, uint32_t port_no, bool must_work,
                                                  std::string_view lacks);

}  // namespace vswitch
