// vsctl: configures bridges and ports. See vsctl.h.
#include "cli/vsctl.h"

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  return vswitch::cli::finish_output("vsctl", vswitch::cli::run_vsctl(words));
}
