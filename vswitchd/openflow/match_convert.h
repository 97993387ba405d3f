// Conversion between libopenvswitch's struct flow / struct match and PipelineKey / Match.
//
// Both describe the same fields, member by member, in different order and with different representations of a few:
// those that libopenvswitch keeps in places shared by two protocols (nd_reserved, nd_options_type), tunnel flags,
// ct_label. Thread-safe: functions of their arguments.
#pragma once

#include "datapath/base/status.h"
#include "vswitchd/openflow/ovs.h"
#include "vswitchd/rules/match.h"

namespace vswitch::ovs {

PipelineKey key_from_flow(const ::flow& flow);
::flow flow_from_key(const PipelineKey& key);

// The mask of fields of a flow whose headers are those of `context` (which says what the shared places hold).
PipelineMask mask_from_flow(const ::flow& mask, const ::flow& context);

// Fails, naming the field, if the match is on something that PipelineKey has no place for.
Result<Match> match_from_ovs(const ::match& match);
// `out` is filled completely; it owns nothing.
void match_to_ovs(const PipelineKey& value, const PipelineMask& mask, ::match* out);
// For the match of a rule: a field that is matched whole is so in libopenvswitch's eyes, too, and prints without a
// mask. (A megaflow's mask is printed as it is.)
void rule_match_to_ovs(const Match& match, ::match* out);

// ok, or which field is matched although its prerequisite is not.
Status check_prerequisites(const ::match& match);

}  // namespace vswitch::ovs
