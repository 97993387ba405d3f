// ofctl: programs rules and traces packets. See ofctl.h.
#include <cstdlib>

#include "cli/ofctl.h"

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  // The output is written and the daemon has replied: there is nothing left to do in order.
  std::_Exit(vswitch::cli::finish_output("ofctl", vswitch::cli::run_ofctl(words)));
}
