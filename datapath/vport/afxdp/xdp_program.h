// XdpProgram: what runs in the kernel for each frame that a device receives: it gives the frame to the socket of its
// queue, or lets it pass to the host if there is none. Written here in instructions, so that nothing has to be
// compiled, found or pinned at run time; it leaves the device when this object goes, or the process however it ends.
//
// A VLAN tag that the sender or the device holds aside of the frame would be lost on the way to the socket, and the
// frame be taken for an untagged one. Where the kernel can tell (Linux 6.8, native mode, drivers with XDP metadata:
// veth, mlx5, ice, igc, ...), the program puts it back into the frame.
#pragma once

#include <cstdint>
#include <string>

#include "datapath/base/status.h"
#include "datapath/base/unique_fd.h"

namespace vswitch::afxdp {

class XdpProgram {
 public:
  // Loads the program, without running it. `native`: in the driver, else in the kernel's stack.
  static Result<XdpProgram> load(const std::string& device, uint32_t ifindex, bool native, uint32_t queues);

  // Frames of `queue` go to this AF_XDP socket.
  Status set_socket(uint32_t queue, int socket);
  // Begins to run.
  Status attach();
  // Ends to run; no frame is on its way to a socket any more.
  void detach() { link_.reset(); }
  // Tags are put back.
  bool keeps_tags() const { return keeps_tags_; }

 private:
  XdpProgram() = default;
  int load_program(int tag_function);

  std::string device_;
  uint32_t ifindex_ = 0;
  bool native_ = false;
  bool keeps_tags_ = false;
  UniqueFd sockets_;  // a map: queue to socket
  UniqueFd program_;
  UniqueFd link_;
};

}  // namespace vswitch::afxdp
