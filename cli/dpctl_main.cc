// dpctl: looks inside the datapath. See dpctl.h.
#include "cli/dpctl.h"

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  return vswitch::cli::finish_output("dpctl", vswitch::cli::run_dpctl(words));
}
