// ofctl: programs rules and traces packets. See ofctl.h.
#include "cli/ofctl.h"

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  return vswitch::cli::finish_output("ofctl", vswitch::cli::run_ofctl(words));
}
