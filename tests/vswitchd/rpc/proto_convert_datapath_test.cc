#include "vswitchd/rpc/proto_convert_datapath.h"

#include <gtest/gtest.h>

#include "datapath/flow/field.h"

namespace vswitch {
namespace {

std::vector<std::string> fields_of(const PipelineMask& mask) {
  FlowTable::MaskInfo info{.mask = mask.packet, .flows = 3, .hits = 7};
  v1::DatapathMask out;
  mask_to_proto(info, out);
  EXPECT_EQ(out.flows(), 3u);
  EXPECT_EQ(out.hits(), 7u);
  return {out.fields().begin(), out.fields().end()};
}

PipelineMask mask_of(std::initializer_list<FieldId> fields) {
  PipelineMask mask;
  for (FieldId id : fields) mark_field(field(id), mask);
  return mask;
}

// A mask has no values, so that no field's prerequisite holds in it: fields behind the Ethernet header are named all
// the same.
TEST(ProtoConvertDatapath, MasksNameFieldsOfAllHeaders) {
  EXPECT_EQ(fields_of(mask_of({FieldId::kInPort, FieldId::kEthType, FieldId::kNwSrc, FieldId::kNwProto,
                               FieldId::kIpFrag, FieldId::kTcpDst, FieldId::kTcpFlags})),
            (std::vector<std::string>{"in_port", "eth_type", "nw_src", "nw_proto", "nw_frag", "tp_dst", "tcp_flags"}));
  EXPECT_EQ(fields_of(mask_of({FieldId::kIpv6Dst, FieldId::kNwTtl, FieldId::kUdpSrc})),
            (std::vector<std::string>{"ipv6_dst", "nw_ttl", "tp_src"}));
  EXPECT_EQ(fields_of(mask_of({FieldId::kArpSpa, FieldId::kNdTarget})),
            (std::vector<std::string>{"nw_src", "nd_target"}));
  EXPECT_EQ(fields_of(mask_of({FieldId::kNwTos, FieldId::kNwEcn})), (std::vector<std::string>{"nw_tos", "nw_ecn"}));
}

TEST(ProtoConvertDatapath, PartsOfFieldsAreWrittenAsTheFieldIs) {
  PipelineMask mask;
  mask.packet.nw_dst = to_be32(0xffffff00);
  mask.packet.eth_dst = *MacAddress::parse("01:00:00:00:00:00");
  mask.packet.ipv6_src = *Ipv6Address::parse("ffff:ffff::");
  mask.packet.vlan[0].tci = kVlanCfi;
  mask.packet.tp_src = to_be16(0xf000);
  EXPECT_EQ(fields_of(mask),
            (std::vector<std::string>{"eth_dst/01:00:00:00:00:00", "vlan_tci/0x1000", "nw_dst/255.255.255.0",
                                      "ipv6_src/ffff:ffff::", "tp_src/0xf000"}));
}

TEST(ProtoConvertDatapath, MasksThatDifferLookDifferent) {
  PipelineMask mask = mask_of({FieldId::kEthType});
  mask.packet.vlan[1].tci = kVlanCfi;
  EXPECT_EQ(fields_of(mask), (std::vector<std::string>{"eth_type", "inner_vlan_tci/0x1000"}));
  for (size_t i = 0; i < kFlowKeyWords; ++i) {
    FlowTable::MaskInfo one;
    words(one.mask)[i] = ~uint64_t{0};
    v1::DatapathMask out;
    mask_to_proto(one, out);
    EXPECT_GT(out.fields_size(), 0) << "word " << i;
  }
}

}  // namespace
}  // namespace vswitch
