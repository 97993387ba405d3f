// Rule codec: rules as compact bytes, for the store.
//
// Not OpenFlow messages: those lose how an action was spelled (load or set_field, mod_nw_src or set_field), and
// encoding them costs more than all the rest of adding a rule. The format is ours:
//   version byte | table, flags, priority, timeouts, ... as varints | match | actions
// A match is a list of segments of the key (segment id, value, mask unless exact); an action is its kind and
// parameters; a field is named by its ovs-fields(7) name. Segment ids, kinds and names never change their meaning, so a
// store outlives changes of the key's layout. Numbers of the key that are in host order are stored little-endian, wire
// fields as they are.
//
// Thread safety: functions of their arguments only.
#pragma once

#include <string>
#include <string_view>

#include "datapath/base/status.h"
#include "vswitchd/rules/rule.h"

namespace vswitch {

// Never fails: every RuleSpec has an encoding, and decode_rule(encode_rule(r)) equals r.
std::string encode_rule(const RuleSpec& rule);

// Any bytes may come in: what is not exactly one rule (truncated, trailing bytes, unknown version, kind, field or
// segment, nested too deep) is refused. Does not check whether the rule makes sense: see check_rule().
Result<RuleSpec> decode_rule(std::string_view bytes);

}  // namespace vswitch
