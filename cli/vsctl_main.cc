// vsctl: configures bridges and ports. See vsctl.h.
#include <cstdlib>

#include "cli/vsctl.h"

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  // The output is written and the daemon has replied: there is nothing left to do in order.
  std::_Exit(vswitch::cli::finish_output("vsctl", vswitch::cli::run_vsctl(words)));
}
