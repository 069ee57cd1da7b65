#include "parallel/parameters/delayed_scaling.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <span>
#include <utility>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "runtime/core/log.h"
#include "runtime/device/host.h"

namespace trireme {
namespace {

// Of scales: of normal floats whose inverse is one.
constexpr int kLeastExponent = -126;
constexpr int kMostExponent = 126;

}  // namespace

ExponentWindow::ExponentWindow(std::vector<Entry> entries, int64_t steps)
    : entries_(std::move(entries)) {
  for (Entry& entry : entries_) {
    entry.steps_left = std::min(entry.steps_left, steps);
  }
}

bool ExponentWindow::IsWindow(const std::vector<Entry>& entries) {
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto& [exponent, steps_left] = entries[i];
    if (exponent < kLeastExponent || exponent > kMostExponent ||
        steps_left < 1 || steps_left > Float8Layers::kMostHistory) {
      return false;
    }
    if (i > 0 && (exponent >= entries[i - 1].exponent ||
                  steps_left < entries[i - 1].steps_left)) {
      return false;
    }
  }
  return true;
}

void ExponentWindow::Push(int exponent, int64_t steps) {
  for (Entry& entry : entries_) --entry.steps_left;
  std::erase_if(entries_, [exponent](const Entry& entry) {
    return entry.steps_left == 0 || entry.exponent <= exponent;
  });
  entries_.push_back({exponent, steps});
}

std::optional<int> ExponentWindow::largest() const {
  if (entries_.empty()) return std::nullopt;
  return entries_.front().exponent;
}

DelayedScaling::DelayedScaling(const Float8Layers& layers, Device& device,
                               const std::vector<Parameter*>& parameters)
    : layers_(layers), device_(device) {
  CHECK_GT(layers.history, 0);
  for (Parameter* const parameter : parameters) {
    if (parameter->float8_products) parameters_.push_back(parameter);
  }
  if (parameters_.empty()) return;
  const auto count = static_cast<int64_t>(parameters_.size());
  const std::vector<float> ones(count * kFloat8Operands, 1.0f);
  scales_ = Upload<float>(device, {count, kFloat8Operands}, ones,
                          MemoryCategory::kParameters, "FP8 scales");
  needed_ = Tensor::Empty(device, {count, kFloat8Operands}, DType::kFloat32,
                          MemoryCategory::kParameters, "needed FP8 scales");
  needed_.FillZero();
  for (int64_t i = 0; i < count; ++i) {
    const auto own = [i](const Tensor& of_all) {
      return of_all.Slice(i, i + 1).Reshape({kFloat8Operands});
    };
    Float8Delay& delay = parameters_[i]->float8_delay;
    delay.scales = own(scales_);
    delay.needed = own(needed_);
  }
}

void DelayedScaling::AssumeHistories() {
  for (Parameter* const parameter : parameters_) {
    parameter->float8_delay.known.fill(true);
  }
}

void DelayedScaling::BeginStep() {
  if (!parameters_.empty()) needed_.FillZero();
}

void DelayedScaling::WriteScales() {
  if (parameters_.empty()) return;
  std::vector<float> scales(parameters_.size() * kFloat8Operands, 1.0f);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Float8Delay& delay = parameters_[i]->float8_delay;
    delay.known.fill(false);
    const auto found = histories_.find(parameters_[i]->name);
    if (found == histories_.end()) continue;
    for (int operand = 0; operand < kFloat8Operands; ++operand) {
      const std::optional<int> largest = found->second[operand].largest();
      if (!largest.has_value()) continue;
      delay.known[operand] = true;
      const int exponent =
          std::clamp(*largest + layers_.margin, kLeastExponent, kMostExponent);
      scales[i * kFloat8Operands + operand] = std::ldexp(1.0f, exponent);
    }
  }
  scales_.CopyFrom(Upload<float>(device_, scales_.shape(), scales,
                                 MemoryCategory::kWorkspace, "FP8 scales"));
}

void DelayedScaling::EndStep(Control& control) {
  if (!names_.has_value()) {
    std::vector<std::string> own;
    for (const Parameter* parameter : parameters_) {
      own.push_back(parameter->name);
    }
    std::set<std::string> all;
    for (const std::string& text :
         control.AllGather(absl::StrJoin(own, "\n"), "layers in FP8")) {
      const std::vector<std::string> names =
          absl::StrSplit(text, '\n', absl::SkipEmpty());
      all.insert(names.begin(), names.end());
    }
    names_.emplace(all.begin(), all.end());
    std::erase_if(histories_, [&all](const auto& history) {
      return !all.contains(history.first);
    });
  }
  std::vector<double> needed(names_->size() * kFloat8Operands, 0.0);
  // None on a dry device.
  std::vector<float> own;
  if (!parameters_.empty()) own = Download<float>(needed_);
  for (size_t i = 0; i < own.size(); ++i) {
    const std::string& name = parameters_[i / kFloat8Operands]->name;
    const auto at = std::lower_bound(names_->begin(), names_->end(), name);
    CHECK(at != names_->end() && *at == name) << name;
    double& of_all =
        needed[(at - names_->begin()) * kFloat8Operands + i % kFloat8Operands];
    of_all = std::max(of_all, static_cast<double>(own[i]));
  }
  if (needed.empty()) return;  // on all ranks
  control.Max(std::span<double>(needed), "scales of FP8");
  for (size_t i = 0; i < needed.size(); ++i) {
    if (needed[i] == 0 || !std::isfinite(needed[i])) continue;
    histories_[(*names_)[i / kFloat8Operands]][i % kFloat8Operands].Push(
        std::ilogb(needed[i]), layers_.history);
  }
  if (device_.dry()) {
    AssumeHistories();
  } else {
    WriteScales();
  }
}

void DelayedScaling::set_histories(Float8Histories histories) {
  histories_ = std::move(histories);
  for (auto& [name, windows] : histories_) {
    for (ExponentWindow& window : windows) {
      window = ExponentWindow(window.entries(), layers_.history);
    }
  }
  WriteScales();
}

}  // namespace trireme
