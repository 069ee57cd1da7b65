#include "runtime/autograd/weight_gradient_queue.h"

#include <utility>

#include "runtime/core/log.h"

namespace trireme {

void WeightGradientQueue::Add(Parameter& parameter,
                              std::function<void()> compute,
                              std::function<void()> prepare) {
  AddEntry({{&parameter}, std::move(compute), std::move(prepare)});
}

void WeightGradientQueue::AddBoth(Parameter& first, Parameter& second,
                                  std::function<void()> compute,
                                  std::function<void()> prepare) {
  AddEntry({{&first, &second}, std::move(compute), std::move(prepare)});
}

void WeightGradientQueue::AddWork(std::function<void()> work) {
  AddEntry({{}, std::move(work)});
}

void WeightGradientQueue::AddEntry(Entry entry) {
  if (deferred_) {
    entries_.push_back(std::move(entry));
  } else {
    if (entry.prepare) entry.prepare();
    RunEntry(entry);
  }
}

void WeightGradientQueue::RunEntry(const Entry& entry) {
  if (needed_) {
    for (Parameter* const parameter : entry.parameters) needed_(*parameter);
  }
  entry.compute();
  for (Parameter* const parameter : entry.parameters) {
    const int left = --uses_.at(parameter);
    CHECK_GE(left, 0) << parameter->name;
    if (left == 0 && ready_) ready_(*parameter);
  }
}

void WeightGradientQueue::Run() {
  // One is prepared ahead of the one that is computed.
  size_t prepared = 0;
  const auto prepare_next = [&] {
    while (prepared < entries_.size()) {
      const Entry& next = entries_[prepared++];
      if (!next.prepare) continue;
      next.prepare();
      return;
    }
  };
  prepare_next();
  for (Entry& entry : entries_) {
    if (entry.prepare) prepare_next();
    RunEntry(entry);
    entry = {};
  }
  entries_.clear();
}

}  // namespace trireme
