// In builds without clang or libbpf.
#include "datapath/kernel_path/programs.h"

namespace vswitch {

struct KernelPrograms::Object {};

KernelPrograms::KernelPrograms() = default;
KernelPrograms::~KernelPrograms() = default;

Result<std::unique_ptr<KernelPrograms>> KernelPrograms::load() {
  return failed_precondition("this build has no kernel path (clang and libbpf-dev were missing)");
}
Status KernelPrograms::insert(const ConnectionKey&, uint32_t) { return internal_error("no kernel path"); }
void KernelPrograms::erase(const ConnectionKey&) {}
Result<UniqueFd> KernelPrograms::attach(int, uint32_t) { return internal_error("no kernel path"); }
void KernelPrograms::remove_filter(int) {}
void KernelPrograms::wait_for_running() {}
int KernelPrograms::filter_fd() const { return -1; }
int KernelPrograms::forward_fd() const { return -1; }

}  // namespace vswitch
