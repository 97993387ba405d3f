#include "datapath/packet/ledger.h"

#include <gtest/gtest.h>

namespace vswitch {
namespace {

TEST(Ledger, MakesBooksOnFirstUse) {
  Ledger ledger;
  EXPECT_EQ(ledger.find(1000), nullptr);
  ledger.port(1000).received.add(3);
  ledger.drop(1000, DropReason::tx_too_big, 2);
  ASSERT_NE(ledger.find(1000), nullptr);
  EXPECT_EQ(ledger.find(1000)->received.get(), 3u);
  EXPECT_EQ(ledger.find(1000)->dropped[static_cast<size_t>(DropReason::tx_too_big)].get(), 2u);
  EXPECT_EQ(ledger.find(1001)->received.get(), 0u) << "a neighbour that nobody wrote to is zero";
  EXPECT_EQ(ledger.find(kMaxPorts - 1), nullptr);
}

TEST(Ledger, BooksImpossiblePortsUnderZero) {
  Ledger ledger;
  ledger.port(kMaxPorts).sent.add();
  ledger.port(0xffffffff).sent.add();
  EXPECT_EQ(ledger.find(0)->sent.get(), 2u);
  EXPECT_EQ(ledger.find(kMaxPorts), nullptr);
  ledger.port(kMaxPorts - 1).sent.add();
  EXPECT_EQ(ledger.find(kMaxPorts - 1)->sent.get(), 1u);
}

}  // namespace
}  // namespace vswitch
