#include "vswitchd/control/outcomes.h"

#include <algorithm>
#include <utility>

#include "datapath/base/word_hash.h"
#include "datapath/flow/flow_mask.h"

namespace vswitch {
namespace {

uint64_t hash_of(const HotWords& words) {
  const auto& s = kHashSecret.lanes;
  static_assert(kHotWords == 8);
  return hash_pair(words[0], words[1], s[0], s[1]) ^ hash_pair(words[2], words[3], s[2], s[3]) ^
         hash_pair(words[4], words[5], s[4], s[5]) ^ hash_pair(words[6], words[7], s[6], s[7]);
}

bool is_hot_only(const FlowMask& mask) {
  const KeyWord* w = words(mask);
  return std::all_of(w + kHotWords, w + kFlowKeyWords, [](uint64_t word) { return word == 0; });
}

}  // namespace

void Outcomes::ask_of(const Flow& flow) {
  if (asked_.pattern == &flow.hot_mask()) return;
  asked_.pattern = &flow.hot_mask();
  asked_.mask = flow.mask();
  asked_.forms.clear();
  for (Form& form : forms_) fit(form);
}

// An outcome that looks at as much as the flow is the flow's own: no other flow agrees with it on all of that.
void Outcomes::fit(Form& form) {
  if (mask_contains(asked_.mask, form.mask) && !(asked_.mask == form.mask)) asked_.forms.push_back(&form);
}

bool Outcomes::fixes(const Flow& flow, const FlowMask& mask) {
  ask_of(flow);
  return mask_contains(asked_.mask, mask);
}

HotWords Outcomes::masked_hot(const Flow& flow, const Form& form) {
  HotWords hot;
  for (size_t i = 0; i < kHotWords; ++i) hot[i] = flow.hot_key()[i] & words(form.mask)[i];
  return hot;
}

const Outcome* Outcomes::find(const Flow& flow, Form& form) {
  const HotWords hot = masked_hot(flow, form);
  const auto [begin, end] = form.entries.equal_range(hash_of(hot));
  for (auto at = begin; at != end; ++at) {
    const Entry& entry = at->second;
    if (entry.hot != hot) continue;
    if (!form.hot_only && !(masked(flow.key(), form.mask) == *entry.rest)) continue;
    form.patience = std::min(form.patience + kWorth, kPatience);
    return &entry.outcome;
  }
  --form.patience;
  return nullptr;
}

const Outcome* Outcomes::find(const Flow& flow) {
  if (forms_.empty()) return nullptr;
  ask_of(flow);
  for (Form* form : asked_.forms) {
    if (form->patience <= 0) continue;
    if (const Outcome* outcome = find(flow, *form)) return outcome;
  }
  return nullptr;
}

const Outcome& Outcomes::add(const Flow& flow, const FlowMask& mask, Outcome outcome) {
  ask_of(flow);
  alone_ = std::move(outcome);
  if (asked_.mask == mask) return alone_;
  auto form = std::find_if(forms_.begin(), forms_.end(), [&mask](const Form& f) { return f.mask == mask; });
  if (form == forms_.end()) {
    if (forms_.size() >= kMostMasks) return alone_;
    form = forms_.insert(form, Form{.mask = mask, .hot_only = is_hot_only(mask)});
    fit(*form);
  }
  if (form->patience <= 0) return alone_;
  Entry entry{.hot = masked_hot(flow, *form), .rest = nullptr, .outcome = std::move(alone_)};
  if (!form->hot_only) entry.rest = std::make_unique<FlowKey>(masked(flow.key(), mask));
  const uint64_t hash = hash_of(entry.hot);
  return form->entries.emplace(hash, std::move(entry))->second.outcome;
}

void Outcomes::forget() {
  for (Form& form : forms_) form.entries.clear();
  asked_ = {};
  alone_ = {};
}

const Flow::ActionsRef& Outcomes::share(const Flow& flow, ActionList actions) {
  if (last_actions_ != nullptr && Flow::list_of(last_actions_) == actions) return last_actions_;
  if (flow.actions() == actions) return last_actions_ = flow.actions_ref();
  return last_actions_ = Flow::make_actions(std::move(actions));
}

}  // namespace vswitch
