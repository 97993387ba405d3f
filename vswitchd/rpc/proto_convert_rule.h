// Rules, matches and actions: protobuf messages <-> domain values, by way of the field registry.
//
// A message that says something impossible (unknown field, value too wide, no action chosen) gives invalid_argument
// whose field() is the path inside the message; whether a rule makes sense is check_rule()'s business, which from_proto
// calls for typed rules. Text goes through the flow parser. Functions of their arguments only.
#pragma once

#include "vswitch/v1/rule.pb.h"
#include "vswitch/v1/rule_service.pb.h"
#include "vswitchd/control/switch.h"
#include "vswitchd/openflow/flow_line.h"
#include "vswitchd/openflow/flow_text.h"

namespace vswitch {

// A field's value: n_bytes of it, big-endian. `mask` may be null; an IP prefix length in the text is then refused.
struct ParsedFieldValue {
  FieldValue value;
  FieldValue mask;
};
Result<ParsedFieldValue> field_value_from_proto(const Field& field, const v1::FieldValue& value,
                                                const v1::FieldValue* mask, const std::string& path);
Result<const Field*> field_from_proto(const std::string& name, const std::string& path);

Result<Match> match_from_proto(const v1::Match& match, const FlowNames* names, const std::string& path = "match");
// The fields in which `match` has mask bits; values as number up to 64 bits, else as bytes.
void match_to_proto(const Match& match, v1::Match& out);
// A packet's headers as trace takes them: text, fields or both. Fields may not be masked.
Result<PipelineKey> flow_from_proto(const v1::Match& flow, const FlowNames* names);

Result<RuleActionList> actions_from_proto(const google::protobuf::RepeatedPtrField<v1::Action>& actions,
                                          const std::string& path = "actions");
void actions_to_proto(const RuleActionList& actions, google::protobuf::RepeatedPtrField<v1::Action>& out);

// `parser` reads the text: one for many changes.
Result<RuleMod> rule_mod_from_proto(const v1::RuleMod& mod, const FlowNames* names, RuleLineParser& parser);
Result<RuleFilter> rule_filter_from_proto(const v1::RuleFilter& filter, const FlowNames* names);
// Deletes what the filter selects.
RuleMod deletion_of(const RuleFilter& filter);

struct RuleViewOptions {
  bool typed = true;
  bool text = false;
  bool statistics = true;  // of the text
  const FlowNames* names = nullptr;
};
void rule_to_proto(const RuleInfo& rule, const RuleViewOptions& options, v1::Rule& out);

}  // namespace vswitch
