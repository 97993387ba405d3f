// A firewall for tests: an nftables base chain without rules, in the calling thread's network namespace.
#pragma once

#include <cstdint>
#include <string>

namespace vswitch::test {

// `family`: NFPROTO_*; `hook`: NF_INET_*. The table is made with it. False: the kernel has no nftables. Any other
// refusal fails the test.
bool add_nft_chain(uint8_t family, const std::string& table, const std::string& chain, uint32_t hook);
// With its chains.
void remove_nft_table(uint8_t family, const std::string& table);

}  // namespace vswitch::test
