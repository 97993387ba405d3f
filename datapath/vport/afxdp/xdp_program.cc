#include "datapath/vport/afxdp/xdp_program.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstddef>
#include <system_error>
#include <vector>

namespace vswitch::afxdp {
namespace {

constexpr uint32_t kDeviceBound = 1u << 6;  // BPF_F_XDP_DEV_BOUND_ONLY, which Debian 12's header does not have

// Instructions, as <linux/filter.h> of the kernel calls them.
constexpr uint8_t r0 = 0, r1 = 1, r2 = 2, r3 = 3, r5 = 5, r6 = 6, frame_pointer = 10;

constexpr bpf_insn instruction(uint8_t code, uint8_t dst, uint8_t src, int16_t offset, int32_t value) {
  bpf_insn insn{};
  insn.code = code;
  insn.dst_reg = dst & 0xf;
  insn.src_reg = src & 0xf;
  insn.off = offset;
  insn.imm = value;
  return insn;
}
constexpr bpf_insn set(uint8_t dst, int32_t value) {
  return instruction(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, value);
}
constexpr bpf_insn copy(uint8_t dst, uint8_t src) { return instruction(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0); }
constexpr bpf_insn add(uint8_t dst, int32_t value) {
  return instruction(BPF_ALU64 | BPF_ADD | BPF_K, dst, 0, 0, value);
}
constexpr bpf_insn load(uint8_t size, uint8_t dst, uint8_t from, int16_t offset) {
  return instruction(BPF_LDX | BPF_MEM | size, dst, from, offset, 0);
}
constexpr bpf_insn store(uint8_t size, uint8_t to, int16_t offset, uint8_t src) {
  return instruction(BPF_STX | BPF_MEM | size, to, src, offset, 0);
}
constexpr bpf_insn call(int32_t helper) { return instruction(BPF_JMP | BPF_CALL, 0, 0, 0, helper); }
constexpr bpf_insn call_kernel(int32_t function) {
  return instruction(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_KFUNC_CALL, 0, function);
}
constexpr bpf_insn jump_unless_zero(uint8_t reg, int16_t over) {
  return instruction(BPF_JMP | BPF_JNE | BPF_K, reg, 0, over, 0);
}
constexpr bpf_insn jump_if_zero(uint8_t reg, int16_t over) {
  return instruction(BPF_JMP | BPF_JEQ | BPF_K, reg, 0, over, 0);
}
constexpr bpf_insn jump_unless_greater(uint8_t a, uint8_t b, int16_t over) {
  return instruction(BPF_JMP | BPF_JLE | BPF_X, a, b, over, 0);
}
constexpr bpf_insn exit_program() { return instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0); }

// If the frame's tag is held aside, puts it behind the addresses. A frame without room for it is dropped: it must not
// be taken for an untagged one.
void put_tag_back(int function, std::vector<bpf_insn>& program) {
  constexpr int16_t kTpid = -16, kTci = -8;  // on the stack
  const std::vector<bpf_insn> ask = {
      set(r1, 0),
      store(BPF_DW, frame_pointer, kTpid, r1),
      store(BPF_DW, frame_pointer, kTci, r1),
      copy(r1, r6),
      copy(r2, frame_pointer),
      add(r2, kTpid),
      copy(r3, frame_pointer),
      add(r3, kTci),
      call_kernel(function),
  };
  const std::vector<bpf_insn> insert = {
      copy(r1, r6),
      set(r2, -4),
      call(BPF_FUNC_xdp_adjust_head),
      jump_if_zero(r0, 2),
      set(r0, XDP_DROP),
      exit_program(),
      load(BPF_W, r2, r6, offsetof(xdp_md, data)),
      load(BPF_W, r3, r6, offsetof(xdp_md, data_end)),
      copy(r1, r2),
      add(r1, 18),
      jump_unless_greater(r1, r3, 2),
      set(r0, XDP_DROP),
      exit_program(),
      // The addresses move to the front.
      load(BPF_W, r5, r2, 4),
      store(BPF_W, r2, 0, r5),
      load(BPF_W, r5, r2, 8),
      store(BPF_W, r2, 4, r5),
      load(BPF_W, r5, r2, 12),
      store(BPF_W, r2, 8, r5),
      load(BPF_H, r5, frame_pointer, kTpid),  // network order
      store(BPF_H, r2, 12, r5),
      load(BPF_H, r5, frame_pointer, kTci),
      instruction(BPF_ALU | BPF_END | BPF_TO_BE, r5, 0, 0, 16),
      store(BPF_H, r2, 14, r5),
  };
  program.insert(program.end(), ask.begin(), ask.end());
  program.push_back(jump_unless_zero(r0, static_cast<int16_t>(insert.size())));  // no tag is held aside
  program.insert(program.end(), insert.begin(), insert.end());
}

std::vector<bpf_insn> make_program(int sockets, int tag_function) {
  std::vector<bpf_insn> program = {copy(r6, r1)};
  if (tag_function > 0) put_tag_back(tag_function, program);
  const std::vector<bpf_insn> redirect = {
      load(BPF_W, r2, r6, offsetof(xdp_md, rx_queue_index)),
      instruction(BPF_LD | BPF_IMM | BPF_DW, r1, BPF_PSEUDO_MAP_FD, 0, sockets),
      instruction(0, 0, 0, 0, 0),
      set(r3, XDP_PASS),  // if no socket is there
      call(BPF_FUNC_redirect_map),
      exit_program(),
  };
  program.insert(program.end(), redirect.begin(), redirect.end());
  return program;
}

// The kernel's function that tells a tag, or 0.
int find_tag_function() {
  static const int function = [] {
    btf* const kernel = btf__load_vmlinux_btf();
    if (kernel == nullptr) return 0;
    const int id = btf__find_by_name_kind(kernel, "bpf_xdp_metadata_rx_vlan_tag", BTF_KIND_FUNC);
    btf__free(kernel);
    return id > 0 ? id : 0;
  }();
  return function;
}

// Kernels before 5.11 count maps and programs as locked memory.
void allow_locked_memory() {
  static const bool done = [] {
    const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
    return ::setrlimit(RLIMIT_MEMLOCK, &unlimited) == 0;
  }();
  static_cast<void>(done);
}

Status failed(const std::string& device, const char* what, int error) {
  std::string text = fmt::format("device {}: {}: {}", device, what, std::generic_category().message(error));
  if (error == EPERM || error == EACCES) text += " (needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN)";
  return failed_precondition(std::move(text));
}

}  // namespace

Result<XdpProgram> XdpProgram::load(const std::string& device, uint32_t ifindex, bool native, uint32_t queues) {
  allow_locked_memory();
  XdpProgram program;
  program.device_ = device;
  program.ifindex_ = ifindex;
  program.native_ = native;
  program.sockets_.reset(
      bpf_map_create(BPF_MAP_TYPE_XSKMAP, "vswitch_xsks", sizeof(uint32_t), sizeof(int), queues, nullptr));
  if (!program.sockets_) return failed(device, "the kernel makes no map of AF_XDP sockets", errno);
  const int tag_function = native ? find_tag_function() : 0;
  int error = tag_function != 0 ? program.load_program(tag_function) : -1;
  program.keeps_tags_ = error == 0;
  if (error != 0) error = program.load_program(0);
  if (error != 0) return failed(device, "the kernel does not take the XDP program", error);
  return program;
}

// Returns errno, or 0.
int XdpProgram::load_program(int tag_function) {
  const std::vector<bpf_insn> instructions = make_program(sockets_.get(), tag_function);
  bpf_prog_load_opts options{};
  options.sz = sizeof options;
  if (tag_function != 0) {
    options.prog_flags = kDeviceBound;
    options.prog_ifindex = ifindex_;
  }
  // The kernel's functions are open only to programs that are offered under the GPL too, as this one hereby is.
  const int program = bpf_prog_load(BPF_PROG_TYPE_XDP, "vswitch_afxdp", tag_function != 0 ? "GPL" : "Apache-2.0",
                                    instructions.data(), instructions.size(), &options);
  if (program < 0) return errno;
  program_.reset(program);
  return 0;
}

Status XdpProgram::set_socket(uint32_t queue, int socket) {
  if (bpf_map_update_elem(sockets_.get(), &queue, &socket, BPF_ANY) == 0) return {};
  return failed(device_, "a socket does not go into the map of the XDP program", errno);
}

Status XdpProgram::attach() {
  bpf_link_create_opts options{};
  options.sz = sizeof options;
  options.flags = native_ ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
  link_.reset(bpf_link_create(program_.get(), static_cast<int>(ifindex_), BPF_XDP, &options));
  if (link_) return {};
  const int error = errno;
  if (error == EBUSY || error == EEXIST) {
    return failed_precondition(
        fmt::format("device {} has an XDP program already (`ip link show {}`)", device_, device_));
  }
  if (error == ERANGE) {
    return failed_precondition(
        fmt::format("device {}: the MTU of it or its peer is too large for XDP in native mode", device_));
  }
  return failed(device_,
                native_ ? "the driver does not take an XDP program" : "the device does not take an XDP program", error);
}

}  // namespace vswitch::afxdp
