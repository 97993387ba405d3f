// Translation against expected traces: each file in traces/ sets up a switch, traces packets, and says what must come
// out.
//
//   <lines of SwitchFixture::apply()>
//   packet BRIDGE FLOW        a packet that passes, with side effects (learning)
//   trace BRIDGE FLOW [inner_vlan=VID]   (flow syntax has no words for the inner of two tags)
//   ----
//   <the text of the trace>
//   ====                      then further lines or traces
//
// With VSWITCH_UPDATE_TRACES=1 the expected texts are rewritten from what came out, to be reviewed in the diff.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/support/switch_fixture.h"
#include "vswitchd/openflow/datapath_text.h"
#include "vswitchd/openflow/flow_text.h"
#include "vswitchd/translate/trace_text.h"
#include "vswitchd/translate/translate.h"

namespace vswitch {
namespace {

using test::SwitchFixture;

const std::filesystem::path kTraces = VSWITCH_SOURCE_DIR "/tests/vswitchd/translate/traces";

constexpr std::string_view kInnerVlan = " inner_vlan=";

struct Step {
  std::vector<std::string> setup;  // as written, comments included
  std::string trace;               // "BRIDGE FLOW"
  std::string expected;
};

std::vector<Step> read_steps(const std::filesystem::path& path) {
  std::vector<Step> steps(1);
  std::ifstream in(path);
  bool expecting = false;
  for (std::string line; std::getline(in, line);) {
    if (line == "====") {
      steps.emplace_back();
      expecting = false;
    } else if (line == "----") {
      expecting = true;
    } else if (expecting) {
      steps.back().expected += line + '\n';
    } else if (line.starts_with("trace ")) {
      steps.back().trace = line.substr(6);
    } else {
      steps.back().setup.push_back(line);
    }
  }
  return steps;
}

void write_steps(const std::filesystem::path& path, const std::vector<Step>& steps) {
  std::ofstream out(path);
  for (size_t i = 0; i < steps.size(); ++i) {
    if (i != 0) out << "====\n";
    for (const std::string& line : steps[i].setup) out << line << '\n';
    if (!steps[i].trace.empty()) out << "trace " << steps[i].trace << "\n----\n" << steps[i].expected;
  }
}

// Cookies are 0; recirculations get ids from 1 in each trace.
class Contexts : public TranslateContexts {
 public:
  uint64_t controller_cookie(const ControllerRequest&) override { return 0; }
  RecircRef freeze(FrozenState state) override { return recircs_.freeze(std::move(state)); }
  RecircRef thaw(uint32_t recirc_id) const override { return recircs_.find(recirc_id); }

 private:
  RecircTable recircs_;
};

// One pass through the rules, and those of the recirculations that it ends in, depth first.
std::string run_pass(const TranslateInput& input, int depth) {
  std::vector<TraceNode> nodes;
  TranslateInput traced = input;
  traced.trace = &nodes;
  const TranslateOutput output = translate(traced);
  PipelineMask mask;
  mask.packet = output.mask;
  std::string text = "Flow: " + format_flow_key(output.keys->initial) + "\n" + format_trace_nodes(nodes);
  text += "\nFinal flow: ";
  text += output.keys->final == output.keys->initial ? "unchanged" : format_flow_key(output.keys->final);
  text += "\nMegaflow: " + format_megaflow(output.keys->initial, mask);
  text += "\nDatapath actions: " + format_datapath_actions(output.actions) + "\n";
  if (output.actions.empty()) text += "Drop reason: " + std::string(drop_reason_name(output.drop_reason)) + "\n";
  for (const Recirculation& r : output.recirculations) {
    if (depth == 3) return text + "\n(and so on)\n";
    TranslateInput next{.view = input.view, .key = r.key};
    next.bridge = input.bridge;
    next.ofport_in = input.ofport_in;
    next.allow_side_effects = input.allow_side_effects;
    next.now = input.now;
    next.contexts = input.contexts;
    text += format_recirculation(r.context->id) + run_pass(next, depth + 1);
  }
  return text;
}

// "BRIDGE FLOW" -> translation, as the daemon's trace does it.
std::string run(SwitchFixture& fixture, const std::string& bridge_and_flow, bool side_effects) {
  const size_t space = bridge_and_flow.find(' ');
  const BridgeView* bridge = fixture.bridge(bridge_and_flow.substr(0, space));
  const size_t inner = bridge_and_flow.find(kInnerVlan);
  const Result<ParsedFlowKey> parsed = parse_flow_key(bridge_and_flow.substr(space + 1, inner - space - 1));
  if (bridge == nullptr || !parsed.ok()) return "cannot parse: " + parsed.status().message() + "\n";
  FlowKey key = parsed->key.packet;
  if (inner != std::string::npos) {
    const int vid = std::stoi(bridge_and_flow.substr(inner + kInnerVlan.size()));
    key.vlan[1] = {kEthTypeVlan, to_be16(static_cast<uint16_t>(vid)) | kVlanCfi};
  }
  const auto ofport = static_cast<OfPort>(key.in_port);
  const PortView* port = bridge->port(ofport);
  key.in_port = port != nullptr ? port->dp_port : 0;
  Contexts contexts;
  const bool known = key.in_port != 0;
  const TranslateInput input{.view = fixture.view(),
                             .key = key,
                             .bridge = known ? nullptr : bridge,
                             .ofport_in = known ? kOfPortNone : ofport,
                             .allow_side_effects = side_effects,
                             .now = fixture.clock().now(),
                             .contexts = &contexts};
  return run_pass(input, 0);
}

void apply_setup(SwitchFixture& fixture, const Step& step) {
  for (const std::string& line : step.setup) {
    if (line.starts_with("packet ")) {
      run(fixture, line.substr(7), true);
      continue;
    }
    const Status status = fixture.apply(line);
    ASSERT_TRUE(status.ok()) << line << ": " << status.message();
  }
}

class TraceTest : public testing::TestWithParam<std::string> {};

TEST_P(TraceTest, SaysWhatIsExpected) {
  const std::filesystem::path path = kTraces / (GetParam() + ".txt");
  std::vector<Step> steps = read_steps(path);
  const bool update = std::getenv("VSWITCH_UPDATE_TRACES") != nullptr;
  SwitchFixture fixture;
  for (Step& step : steps) {
    ASSERT_NO_FATAL_FAILURE(apply_setup(fixture, step));
    if (step.trace.empty()) continue;
    const std::string actual = run(fixture, step.trace, false);
    if (update) {
      step.expected = actual;
    } else {
      EXPECT_EQ(step.expected, actual) << step.trace;
    }
  }
  if (update) write_steps(path, steps);
}

// docs/trace.md promises real output: that of the cases doc_*.
TEST(TraceDocument, ShowsWhatTheSwitchPrints) {
  std::ifstream in(VSWITCH_SOURCE_DIR "/docs/trace.md");
  std::string document;
  for (std::string line; std::getline(in, line);) {
    document += (line.starts_with("    ") ? line.substr(4) : line) + '\n';
  }
  for (const char* name : {"doc_overlay", "doc_vlan_switch", "doc_action_set", "doc_recirculation"}) {
    for (const Step& step : read_steps(kTraces / (std::string(name) + ".txt"))) {
      const std::string shown = step.expected.substr(0, step.expected.find("Drop reason: "));
      EXPECT_NE(std::string::npos, document.find(shown)) << name << ": " << step.trace;
    }
  }
}

std::vector<std::string> trace_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kTraces)) names.push_back(entry.path().stem());
  std::sort(names.begin(), names.end());
  return names;
}

INSTANTIATE_TEST_SUITE_P(Files, TraceTest, testing::ValuesIn(trace_names()),
                         [](const auto& instance) { return instance.param; });

}  // namespace
}  // namespace vswitch
