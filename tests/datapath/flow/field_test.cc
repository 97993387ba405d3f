#include "datapath/flow/field.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "datapath/flow/flow_mask.h"
#include "tests/support/random_key.h"

namespace vswitch {
namespace {

FieldValue value_of(const Field& field, uint64_t number) {
  FieldValue value;
  for (size_t i = field.n_bytes; i-- > 0; number >>= 8) value.bytes[i] = static_cast<uint8_t>(number);
  return value;
}

uint64_t number_of(const Field& field, const FieldValue& value) {
  uint64_t number = 0;
  for (size_t i = 0; i < field.n_bytes; ++i) number = number << 8 | value.bytes[i];
  return number;
}

uint64_t read_number(FieldId id, const PipelineKey& key) { return number_of(field(id), read_field(field(id), key)); }

void write_number(FieldId id, uint64_t number, PipelineKey& key) {
  write_field(field(id), value_of(field(id), number), key);
}

// ---- The table

constexpr std::string_view kPrerequisiteNames[] = {"none",   "ethernet", "vlan",       "mpls",      "ip_any", "ipv4",
                                                   "ipv6",   "arp",      "tcp",        "udp",       "sctp",   "icmpv4",
                                                   "icmpv6", "nd",       "nd_solicit", "nd_advert", "nsh",    "ct"};

TEST(FieldTable, AgreesWithOpenVSwitch) {
  std::ifstream file(VSWITCH_SOURCE_DIR "/tests/datapath/flow/ovs_fields.txt");
  ASSERT_TRUE(file);
  size_t count = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    SCOPED_TRACE(line);
    std::istringstream row(line);
    std::string name, alias, maskable, prerequisite, access;
    unsigned width = 0;
    row >> name >> alias >> width >> maskable >> prerequisite >> access;
    const Field* f = find_field(name);
    ASSERT_NE(f, nullptr);
    ++count;
    EXPECT_EQ(f->name, name);
    EXPECT_EQ(f->alias, alias == "-" ? "" : alias);
    EXPECT_EQ(f->width, width);
    EXPECT_EQ(f->maskable == FieldMaskable::fully, maskable == "mask");
    EXPECT_EQ(kPrerequisiteNames[static_cast<size_t>(f->prerequisite)], prerequisite);
    EXPECT_EQ(f->writable, access == "rw");
    if (alias != "-") {
      EXPECT_EQ(find_field(alias), f);
    }
    std::set<std::string_view> wanted, names{f->oxm_name, f->oxm_alias, f->oxm_alias2};
    names.erase("");
    std::string oxm[3];
    for (size_t i = 0; i < 3 && row >> oxm[i]; ++i) {
      EXPECT_EQ(find_field(oxm[i]), f) << oxm[i];
      wanted.insert(oxm[i]);
    }
    EXPECT_EQ(names, wanted);
  }
  EXPECT_EQ(count, kFieldCount);
}

TEST(FieldTable, NamesAreUniqueAndUnknownOnesAreNotFound) {
  std::set<std::string_view> names;
  for (const Field& f : all_fields()) {
    EXPECT_EQ(&field(f.id), &f);
    for (std::string_view name : {f.name, f.alias, f.oxm_name, f.oxm_alias, f.oxm_alias2}) {
      if (name.empty()) continue;
      EXPECT_TRUE(names.insert(name).second) << name << " names two fields";
    }
  }
  EXPECT_EQ(find_field(""), nullptr);
  EXPECT_EQ(find_field("nw_sr"), nullptr);
  EXPECT_EQ(find_field("NW_SRC"), nullptr);
}

TEST(FieldTable, NumberedFieldsAreConsecutive) {
  const auto at = [](FieldId first, int n) -> const Field& {
    return field(static_cast<FieldId>(static_cast<int>(first) + n));
  };
  EXPECT_EQ(at(FieldId::kReg0, 15).name, "reg15");
  EXPECT_EQ(at(FieldId::kXreg0, 7).name, "xreg7");
  EXPECT_EQ(at(FieldId::kXxreg0, 3).name, "xxreg3");
  EXPECT_EQ(at(FieldId::kTunMetadata0, 63).name, "tun_metadata63");
}

// ---- Reading and writing

// Writing any value to any field: it reads back, bits outside the field stay, and mark_field() covers what changed.
TEST(FieldProperty, ReadsBackWhatWasWritten) {
  ASSERT_TRUE(rc::check("write, read", [](uint64_t seed) {
    test::Random random(seed);
    for (const Field& f : all_fields()) {
      PipelineKey before;
      for (size_t i = 0; i < kPipelineKeyWords; ++i) words(before)[i] = random();
      PipelineKey after = before;
      FieldValue value;
      const FieldValue exact = exact_field_mask(f);
      for (size_t i = 0; i < f.n_bytes; ++i) value.bytes[i] = static_cast<uint8_t>(random()) & exact.bytes[i];
      if (!is_field_value_valid(f, value)) continue;
      write_field(f, value, after);
      RC_ASSERT(read_field(f, after) == (f.has_place() ? value : FieldValue{}));

      PipelineMask mask;
      mark_field(f, mask);
      RC_ASSERT(is_empty_mask(mask) == !f.has_place());
      for (size_t i = 0; i < kPipelineKeyWords; ++i) {
        RC_ASSERT(((words(before)[i] ^ words(after)[i]) & ~words(mask)[i]) == 0u);
      }
    }
  }));
}

TEST(FieldProperty, MaskedWriteKeepsTheOtherBits) {
  ASSERT_TRUE(rc::check("masked write", [](uint64_t seed) {
    test::Random random(seed);
    for (const Field& f : all_fields()) {
      if (!f.has_place() || f.width > 64 || f.format == FieldFormat::port) continue;
      PipelineKey key;
      for (size_t i = 0; i < kPipelineKeyWords; ++i) words(key)[i] = random();
      const uint64_t before = number_of(f, read_field(f, key));
      const uint64_t value = random(), mask = random() & f.value_mask;
      write_field_masked(f, value_of(f, value), value_of(f, mask), key);
      RC_ASSERT(number_of(f, read_field(f, key)) == ((before & ~mask) | (value & mask)));
    }
  }));
}

TEST(FieldProperty, SubfieldsAreBitsOfTheValue) {
  ASSERT_TRUE(rc::check("subfields", [](uint64_t seed) {
    test::Random random(seed);
    for (const Field& f : all_fields()) {
      if (!f.has_place()) continue;
      PipelineKey key;
      for (size_t i = 0; i < kPipelineKeyWords; ++i) words(key)[i] = random();
      const auto n_bits = static_cast<unsigned>(1 + random() % std::min<unsigned>(f.width, 64));
      const auto ofs = static_cast<unsigned>(random() % (f.width - n_bits + 1));
      // The same through copy_bits().
      FieldValue out;
      copy_bits(read_field(f, key), f.n_bytes, ofs, out, 8, 0, n_bits);
      uint64_t expected = 0;
      for (size_t i = 0; i < 8; ++i) expected = expected << 8 | out.bytes[i];
      RC_ASSERT(read_subfield(f, ofs, n_bits, key) == expected);

      if (f.format == FieldFormat::port || f.id == FieldId::kNwTos || f.id == FieldId::kArpOp) continue;
      const uint64_t value = random() & (n_bits == 64 ? ~0ull : (1ull << n_bits) - 1);
      const PipelineKey before = key;
      write_subfield(f, ofs, n_bits, value, key);
      RC_ASSERT(read_subfield(f, ofs, n_bits, key) == value);
      PipelineMask mask;
      mark_subfield(f, ofs, n_bits, mask);
      for (size_t i = 0; i < kPipelineKeyWords; ++i) {
        const bool tpid = i == offsetof(FlowKey, vlan) / 8;  // a tag that appears gets a TPID
        RC_ASSERT(tpid || ((words(before)[i] ^ words(key)[i]) & ~words(mask)[i]) == 0u);
      }
    }
  }));
}

TEST(Field, ByteOrderIsThatOfTheWire) {
  PipelineKey key;
  key.packet.in_port = 0x0102;
  key.packet.skb_mark = 0x01020304;
  key.packet.nw_src = to_be32(0x0a000001);
  key.packet.ct_label = {0x0102030405060708, 0x090a0b0c0d0e0f10};
  EXPECT_EQ(read_number(FieldId::kInPort, key), 0x0102u);
  EXPECT_EQ(read_number(FieldId::kPktMark, key), 0x01020304u);
  EXPECT_EQ(read_field(field(FieldId::kNwSrc), key).bytes[0], 0x0a);
  const FieldValue label = read_field(field(FieldId::kCtLabel), key);
  for (size_t i = 0; i < 16; ++i) EXPECT_EQ(label.bytes[i], i + 1);
}

TEST(Field, WideRegistersLieOverNarrowOnes) {
  PipelineKey key;
  write_number(FieldId::kXreg1, 0x1111111122222222, key);
  EXPECT_EQ(key.pipeline.reg[2], 0x11111111u);
  EXPECT_EQ(key.pipeline.reg[3], 0x22222222u);
  FieldValue value;
  for (size_t i = 0; i < 16; ++i) value.bytes[i] = static_cast<uint8_t>(i / 4 + 1);
  write_field(field(FieldId::kXxreg3), value, key);
  EXPECT_EQ(key.pipeline.reg[12], 0x01010101u);
  EXPECT_EQ(key.pipeline.reg[15], 0x04040404u);
  EXPECT_EQ(read_subfield(field(FieldId::kXxreg3), 96, 32, key), 0x01010101u);
  EXPECT_EQ(read_subfield(field(FieldId::kXxreg3), 28, 8, key), 0x30u);
}

TEST(Field, VlanFields) {
  PipelineKey key;
  write_number(FieldId::kDlVlan, 10, key);
  EXPECT_EQ(key.packet.vlan[0].tci, to_be16(0x100a)) << "a tag with this VLAN is present";
  EXPECT_FALSE(key.packet.vlan[0].tpid) << "a match on a VLAN is for any TPID";
  write_number(FieldId::kVlanPcp, 5, key);
  EXPECT_EQ(key.packet.vlan[0].tci, to_be16(0xb00a));
  EXPECT_EQ(read_number(FieldId::kVlanVid, key), 0x100au);
  EXPECT_EQ(read_number(FieldId::kDlVlan, key), 10u);
  EXPECT_EQ(read_number(FieldId::kVlanTci, key), 0xb00au);
  write_number(FieldId::kVlanVid, 0, key);
  EXPECT_EQ(key.packet.vlan[0].tci, to_be16(0xa000)) << "vlan_vid holds the present bit itself";
  PipelineKey untagged;
  const Field& pcp = field(FieldId::kDlVlanPcp);
  set_field(pcp, value_of(pcp, 3), exact_field_mask(pcp), untagged);
  EXPECT_EQ(untagged.packet.vlan[0].tci, to_be16(0x7000));
  EXPECT_EQ(untagged.packet.vlan[0].tpid, kEthTypeVlan) << "an action that makes a tag appear gives it a TPID";
  key.packet.vlan[0].tpid = kEthTypeQinq;
  write_subfield(field(FieldId::kVlanTci), 0, 12, 7, key);
  EXPECT_EQ(key.packet.vlan[0].tpid, kEthTypeQinq);
  PipelineMask mask;
  mark_field(field(FieldId::kDlVlan), mask);
  EXPECT_EQ(mask.packet.vlan[0].tci, to_be16(0x1fff));
}

TEST(Field, TosFieldsShareOneByte) {
  PipelineKey key;
  key.packet.nw_tos = 0xb9;  // DSCP 46, ECN 1
  EXPECT_EQ(read_number(FieldId::kNwTos, key), 0xb8u);
  EXPECT_EQ(read_number(FieldId::kIpDscp, key), 46u);
  EXPECT_EQ(read_number(FieldId::kNwEcn, key), 1u);
  write_number(FieldId::kNwTos, 0x04, key);
  EXPECT_EQ(key.packet.nw_tos, 0x05);
  EXPECT_FALSE(is_field_value_valid(field(FieldId::kNwTos), value_of(field(FieldId::kNwTos), 0x05)));
}

TEST(Field, ReservedPortsHaveThirtyTwoBitsInOpenFlow11) {
  PipelineKey key;
  key.packet.in_port = 0xfffe;
  EXPECT_EQ(read_number(FieldId::kInPort, key), 0xfffeu);
  EXPECT_EQ(read_number(FieldId::kInPortOxm, key), 0xfffffffeu);
  write_number(FieldId::kInPortOxm, 0xfffffffd, key);
  EXPECT_EQ(key.packet.in_port, 0xfffdu);
  write_number(FieldId::kInPortOxm, 7, key);
  EXPECT_EQ(key.packet.in_port, 7u);
  const Field& oxm = field(FieldId::kInPortOxm);
  EXPECT_TRUE(is_field_value_valid(oxm, value_of(oxm, 0xfeff)));
  EXPECT_FALSE(is_field_value_valid(oxm, value_of(oxm, 0xff00)));
  EXPECT_TRUE(is_field_value_valid(oxm, value_of(oxm, 0xffffff00)));
  PipelineMask mask;
  mark_field(field(FieldId::kInPort), mask);
  EXPECT_EQ(mask.packet.in_port, 0xffffffffu);
}

TEST(Field, PlacesThatFieldsShare) {
  PipelineKey key;
  key.packet.mpls[0] = to_be32(0xabcde << 12 | 5 << 9 | 1 << 8 | 64);
  EXPECT_EQ(read_number(FieldId::kMplsLabel, key), 0xabcdeu);
  EXPECT_EQ(read_number(FieldId::kMplsTc, key), 5u);
  EXPECT_EQ(read_number(FieldId::kMplsBos, key), 1u);
  EXPECT_EQ(read_number(FieldId::kMplsTtl, key), 64u);
  key.packet.nsh.path_hdr = to_be32(0x12345678);
  EXPECT_EQ(read_number(FieldId::kNshSpi, key), 0x123456u);
  EXPECT_EQ(read_number(FieldId::kNshSi, key), 0x78u);
  key.packet.tunnel.flags = kTunnelKey | kTunnelChecksum | kTunnelOam;
  EXPECT_EQ(read_number(FieldId::kTunFlags, key), 1u) << "only OAM is to be seen";
  write_number(FieldId::kTunFlags, 0, key);
  EXPECT_EQ(key.packet.tunnel.flags, kTunnelKey | kTunnelChecksum);
}

TEST(Field, ValuesThatDoNotExist) {
  const auto valid = [](FieldId id, uint64_t v) { return is_field_value_valid(field(id), value_of(field(id), v)); };
  EXPECT_TRUE(valid(FieldId::kMplsLabel, 0xfffff));
  EXPECT_FALSE(valid(FieldId::kMplsLabel, 0x100000));
  EXPECT_FALSE(valid(FieldId::kDlVlan, 0x1000));
  EXPECT_TRUE(valid(FieldId::kVlanVid, 0x1fff));
  EXPECT_FALSE(valid(FieldId::kVlanVid, 0x2000));
  EXPECT_FALSE(valid(FieldId::kArpOp, 256));
  EXPECT_FALSE(valid(FieldId::kTcpFlags, 0x1000));
  EXPECT_FALSE(valid(FieldId::kCtState, 0x100));
  EXPECT_FALSE(valid(FieldId::kIpFrag, 4));
  EXPECT_FALSE(valid(FieldId::kNshTtl, 64));
  EXPECT_FALSE(valid(FieldId::kTunFlags, 2));
}

TEST(Field, TunMetadataHasNoPlaceYet) {
  const Field& f = field(FieldId::kTunMetadata0);
  EXPECT_FALSE(f.has_place());
  PipelineKey key;
  FieldValue value;
  value.bytes.fill(0xff);
  write_field(f, value, key);
  write_subfield(f, 0, 32, 1, key);
  mark_field(f, key);
  EXPECT_TRUE(key == PipelineKey{});
  EXPECT_EQ(read_field(f, key), FieldValue{});
  EXPECT_EQ(read_subfield(f, 0, 32, key), 0u);
}

// ---- Prerequisites

TEST(FieldPrerequisites, Ports) {
  PipelineKey key;
  const Field& tcp_dst = field(FieldId::kTcpDst);
  EXPECT_FALSE(prerequisite_holds(tcp_dst, key));
  key.packet.eth_type = kEthTypeIpv6;
  key.packet.nw_proto = kProtoTcp;
  EXPECT_TRUE(prerequisite_holds(tcp_dst, key));
  EXPECT_FALSE(prerequisite_holds(field(FieldId::kUdpDst), key));
  EXPECT_FALSE(prerequisite_holds(field(FieldId::kNwSrc), key));
  key.packet.nw_frag = kFragAny;
  EXPECT_TRUE(prerequisite_holds(tcp_dst, key));
  key.packet.nw_frag = kFragAny | kFragLater;
  EXPECT_FALSE(prerequisite_holds(tcp_dst, key)) << "a later fragment has no ports";
}

TEST(FieldPrerequisites, IcmpOfALaterFragmentCanOnlyBeRead) {
  PipelineKey key;
  PipelineMask mask;
  key.packet.eth_type = kEthTypeIpv4;
  key.packet.nw_proto = kProtoIcmp;
  key.packet.nw_frag = kFragAny | kFragLater;
  const Field& code = field(FieldId::kIcmpCode);
  EXPECT_TRUE(check_readable(code, key, mask));
  EXPECT_EQ(mask.packet.nw_proto, 0xff);
  EXPECT_EQ(mask.packet.nw_frag, 0) << "nothing depends on it";
  EXPECT_FALSE(check_prerequisite(code, key, mask));
  EXPECT_EQ(mask.packet.nw_frag, kFragLater);
  EXPECT_FALSE(check_readable(field(FieldId::kIcmpv6Code), key, mask));
  key.packet.nw_proto = kProtoUdp;
  EXPECT_FALSE(check_readable(field(FieldId::kUdpDst), key, mask)) << "ports cannot be read";
}

TEST(FieldPrerequisites, NeighbourDiscovery) {
  PipelineKey key;
  key.packet.eth_type = kEthTypeIpv6;
  key.packet.nw_proto = kProtoIcmpv6;
  key.packet.tp_src = to_be16(135);
  EXPECT_TRUE(prerequisite_holds(field(FieldId::kNdTarget), key));
  EXPECT_TRUE(prerequisite_holds(field(FieldId::kNdSll), key));
  EXPECT_FALSE(prerequisite_holds(field(FieldId::kNdTll), key));
  key.packet.tp_dst = to_be16(1);
  EXPECT_FALSE(prerequisite_holds(field(FieldId::kNdTarget), key));
  EXPECT_TRUE(prerequisite_holds(field(FieldId::kIcmpv6Type), key));
}

TEST(FieldPrerequisites, VlanArpMplsCt) {
  PipelineKey key;
  EXPECT_FALSE(prerequisite_holds(field(FieldId::kVlanPcp), key));
  EXPECT_TRUE(prerequisite_holds(field(FieldId::kDlVlanPcp), key));
  key.packet.vlan[0].tci = kVlanCfi;
  EXPECT_TRUE(prerequisite_holds(field(FieldId::kVlanPcp), key));
  key.packet.eth_type = kEthTypeRarp;
  EXPECT_TRUE(prerequisite_holds(field(FieldId::kArpOp), key));
  key.packet.eth_type = kEthTypeMplsMcast;
  EXPECT_TRUE(prerequisite_holds(field(FieldId::kMplsLabel), key));
  EXPECT_FALSE(prerequisite_holds(field(FieldId::kCtNwSrc), key));
  key.packet.ct_state = 32 | 16;  // tracked, invalid
  EXPECT_FALSE(prerequisite_holds(field(FieldId::kCtNwSrc), key));
  key.packet.ct_state = 32 | 2;
  EXPECT_TRUE(prerequisite_holds(field(FieldId::kCtNwSrc), key));
}

TEST(FieldPrerequisites, MarkWhatWasLookedAt) {
  PipelineMask all;
  mark_prerequisite(field(FieldId::kNdSll), all);
  EXPECT_EQ(all.packet.eth_type, to_be16(0xffff));
  EXPECT_EQ(all.packet.nw_proto, 0xff);
  EXPECT_EQ(all.packet.tp_src, to_be16(0xffff));
  EXPECT_EQ(all.packet.nw_frag, kFragLater);

  PipelineKey arp;
  arp.packet.eth_type = kEthTypeArp;
  PipelineMask looked;
  EXPECT_FALSE(check_prerequisite(field(FieldId::kNdSll), arp, looked));
  EXPECT_EQ(looked.packet.eth_type, to_be16(0xffff));
  EXPECT_EQ(looked.packet.nw_proto, 0) << "the type said it all";
}

// Sound: packets that agree in the marked bits agree on the prerequisite.
TEST(FieldPrerequisites, DependOnMarkedBitsOnly) {
  ASSERT_TRUE(rc::check("prerequisites", [](uint64_t seed) {
    test::Random random(seed);
    for (const Field& f : all_fields()) {
      PipelineKey a, b;
      a.packet = test::random_key(random);
      b.packet = test::random_key(random);
      PipelineMask looked, all;
      const bool holds = check_prerequisite(f, a, looked);
      RC_ASSERT(holds == prerequisite_holds(f, a));
      mark_prerequisite(f, all);
      for (size_t i = 0; i < kPipelineKeyWords; ++i) {
        RC_ASSERT((words(looked)[i] & ~words(all)[i]) == 0u);
        words(b)[i] = (words(a)[i] & words(looked)[i]) | (words(b)[i] & ~words(looked)[i]);
      }
      RC_ASSERT(prerequisite_holds(f, b) == holds);
    }
  }));
}

TEST(CopyBits, CrossesBytes) {
  FieldValue src, dst;
  src.bytes = {0x12, 0x34, 0x56, 0x78};
  dst.bytes.fill(0xff);
  copy_bits(src, 4, 4, dst, 6, 13, 20);
  FieldValue back;
  copy_bits(dst, 6, 13, back, 4, 0, 20);
  EXPECT_EQ(back.bytes[1], 0x03);
  EXPECT_EQ(back.bytes[2], 0x45);
  EXPECT_EQ(back.bytes[3], 0x67);
  EXPECT_EQ(dst.bytes[5], 0xff) << "bits below stay";
  EXPECT_EQ(dst.bytes[0], 0xff) << "bits above stay";
}

}  // namespace
}  // namespace vswitch
