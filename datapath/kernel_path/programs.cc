#include "datapath/kernel_path/programs.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>
#include <thread>

// The compiled programs (programs.bpf.c), put here by the assembler.
asm(".section .rodata\n"
    ".balign 8\n"
    "vswitch_kernel_programs:\n"
    ".incbin \"" VSWITCH_KERNEL_PROGRAMS
    "\"\n"
    "vswitch_kernel_programs_end:\n"
    ".previous\n");
extern "C" {
[[gnu::visibility("hidden")]] extern const char vswitch_kernel_programs[];
[[gnu::visibility("hidden")]] extern const char vswitch_kernel_programs_end[];
}

namespace vswitch {
namespace {

// Of Linux 6.6, which Debian 12's headers do not have.
constexpr uint32_t kTcxIngress = 46;   // BPF_TCX_INGRESS
constexpr uint32_t kBefore = 1u << 3;  // BPF_F_BEFORE, of nothing in particular: of all
// If the kernel cannot tell when its programs are through: no softirq takes that long.
constexpr auto kLongestProgram = std::chrono::milliseconds(50);

Status failure(std::string_view what, int error) {
  std::string text = fmt::format("{}: {}", what, std::generic_category().message(error));
  // EACCES is what the kernel's check of a program says of a bad one.
  if (error == EPERM) text += " (needs CAP_BPF and CAP_NET_ADMIN)";
  return failed_precondition(std::move(text));
}

// An array of the programs, as it lies in our memory, too.
template <typename Element>
class SharedArray {
 public:
  SharedArray() = default;
  ~SharedArray() {
    if (memory_ != MAP_FAILED) ::munmap(memory_, size());
  }
  SharedArray(const SharedArray&) = delete;
  SharedArray& operator=(const SharedArray&) = delete;
  // On failure, errno tells.
  bool map(int fd) {
    memory_ = ::mmap(nullptr, size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return memory_ != MAP_FAILED;
  }
  std::span<Element> elements() const { return {static_cast<Element*>(memory_), KERNEL_PATH_CONNECTIONS}; }

 private:
  static size_t size() {
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    return (KERNEL_PATH_CONNECTIONS * sizeof(Element) + page - 1) / page * page;
  }
  void* memory_ = MAP_FAILED;
};

// On failure, errno tells.
UniqueFd make_link(int program, uint32_t ifindex) {
  bpf_attr attributes;
  std::memset(&attributes, 0, sizeof attributes);
  attributes.link_create.prog_fd = static_cast<uint32_t>(program);
  attributes.link_create.target_ifindex = ifindex;
  attributes.link_create.attach_type = kTcxIngress;
  attributes.link_create.flags = kBefore;
  return UniqueFd(static_cast<int>(::syscall(SYS_bpf, BPF_LINK_CREATE, &attributes, sizeof attributes)));
}

// A kernel that knows of TCX misses the device, one that does not (before 6.6) the way to attach.
bool has_tcx(int program) { return !make_link(program, 0x7fffffff) && errno == ENODEV; }

int say_nothing(libbpf_print_level, const char*, va_list) { return 0; }

// libbpf writes what it has to say to stderr; we say it ourselves.
class QuietLibbpf {
 public:
  QuietLibbpf() : before_(libbpf_set_print(say_nothing)) {}
  ~QuietLibbpf() { libbpf_set_print(before_); }
  QuietLibbpf(const QuietLibbpf&) = delete;
  QuietLibbpf& operator=(const QuietLibbpf&) = delete;

 private:
  libbpf_print_fn_t before_;
};

}  // namespace

struct KernelPrograms::Object {
  bpf_object* object = nullptr;
  int find = -1, forward = -1, elements = -1;
  SharedArray<kernel_connection> connections;
  SharedArray<kernel_encapsulation> encapsulations;

  Object() = default;
  ~Object() {
    if (object != nullptr) bpf_object__close(object);
  }
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
};

KernelPrograms::KernelPrograms() : object_(std::make_unique<Object>()) {}
KernelPrograms::~KernelPrograms() = default;

Result<std::unique_ptr<KernelPrograms>> KernelPrograms::load() {
  std::unique_ptr<KernelPrograms> programs(new KernelPrograms);
  Object& loaded = *programs->object_;
  const QuietLibbpf quiet;
  const auto size = static_cast<size_t>(vswitch_kernel_programs_end - vswitch_kernel_programs);
  loaded.object = bpf_object__open_mem(vswitch_kernel_programs, size, nullptr);
  if (loaded.object == nullptr) return failure("the eBPF programs cannot be read", errno);
  if (bpf_object__load(loaded.object) != 0) return failure("the kernel does not take the eBPF programs", errno);
  loaded.find = bpf_program__fd(bpf_object__find_program_by_name(loaded.object, "find"));
  loaded.forward = bpf_program__fd(bpf_object__find_program_by_name(loaded.object, "forward"));
  if (!has_tcx(loaded.forward)) return failed_precondition("the kernel has no TCX (Linux 6.6 or later is needed)");
  loaded.elements = bpf_object__find_map_fd_by_name(loaded.object, "elements");
  if (!loaded.connections.map(bpf_object__find_map_fd_by_name(loaded.object, "connections")) ||
      !loaded.encapsulations.map(bpf_object__find_map_fd_by_name(loaded.object, "encapsulations"))) {
    return failure("the table of connections cannot be mapped", errno);
  }
  programs->connections_ = loaded.connections.elements();
  programs->encapsulations_ = loaded.encapsulations.elements();
  return programs;
}

Status KernelPrograms::insert(const ConnectionKey& key, uint32_t element) {
  if (bpf_map_update_elem(object_->elements, &key, &element, BPF_NOEXIST) == 0) return {};
  return failure("a connection cannot be given to the kernel", errno);
}

void KernelPrograms::erase(const ConnectionKey& key) {
  static_cast<void>(bpf_map_delete_elem(object_->elements, &key));  // not there: as wanted
}

Result<UniqueFd> KernelPrograms::attach(int socket, uint32_t ifindex) {
  UniqueFd link = make_link(object_->forward, ifindex);
  if (!link) return failure("no program can be put at the device's ingress", errno);
  // The filter comes last: it relies on the other.
  if (::setsockopt(socket, SOL_SOCKET, SO_ATTACH_BPF, &object_->find, sizeof object_->find) != 0) {
    return failure("the port's socket takes no filter", errno);
  }
  return link;
}

void KernelPrograms::remove_filter(int socket) {
  const int unused = 0;
  static_cast<void>(::setsockopt(socket, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused));
}

void KernelPrograms::wait_for_running() {
  if (::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0) return;
  std::this_thread::sleep_for(kLongestProgram);
}

int KernelPrograms::filter_fd() const { return object_->find; }
int KernelPrograms::forward_fd() const { return object_->forward; }

}  // namespace vswitch
