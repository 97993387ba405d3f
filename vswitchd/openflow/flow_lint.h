// What libopenvswitch's parsers let pass though nobody can have meant it: negative numbers (they wrap around), a part
// of an IPv4 address over 255, an argument of an action that takes none, a field given twice, two protocols at once, a
// field of another protocol than the one matched. A rule made from such text would not do what its writer wants.
//
// Thread-safe: functions of their arguments.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "datapath/base/status.h"
#include "vswitchd/openflow/ovs.h"

namespace vswitch::ovs {

// What the text said about the match, to be compared with what the parser made of it.
struct MatchWords {
  struct Protocol {
    std::string word;  // "tcp"
    uint16_t dl_type;
    uint8_t nw_proto;  // 0: any
  };
  std::vector<Protocol> protocols;
  // Fields that were given by a name that stands for them alone (tcp_dst, not tp_dst).
  std::vector<const mf_field*> fields;
  std::string dl_type, nw_proto;  // the values as written, "" if not given
  bool in_port_zero = false;      // in_port=0, which the parser takes for a port that was not given
};

// Looks at the text of a rule, a filter or a packet. `of_rule`: fields that no rule can match are refused.
Status check_flow_text(std::string_view text, bool of_rule, const FlowNames* names, MatchWords* words);
// "output:1,..." alone.
Status check_action_text(std::string_view text, const FlowNames* names);
// Whether the match that was parsed is the one that the words ask for.
Status check_words(const MatchWords& words, const ::match& match);

// What the match must hold for packets to have such a field: "tcp or tcp6"; "" if nothing.
std::string prerequisite_text(const mf_field& field);

// The parser's words, with what they leave out: which values are possible.
std::string explain_parse_error(std::string message);

}  // namespace vswitch::ovs
