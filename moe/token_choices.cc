#include "moe/token_choices.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "moe/expert_choice.h"
#include "runtime/core/log.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/routing.h"

namespace trireme {
namespace {

std::vector<double> ValuesOf(const Tensor& x) {
  return Download<double>(
      x.dtype() == DType::kFloat64 ? x : Cast(x, DType::kFloat64));
}

int32_t PositionOf(const MoeTokens& tokens, int64_t token) {
  return tokens.positions.empty() ? static_cast<int32_t>(token)
                                  : tokens.positions[token];
}

// The tokens of the samples that this rank has a part of, whoever has them.
struct Samples {
  int64_t tokens = 0;          // of each
  std::vector<double> scores;  // [samples, tokens, experts]

  std::span<const double> Of(int64_t sample, int64_t experts) const {
    const int64_t n = tokens * experts;
    return std::span(scores).subspan(sample * n, n);
  }
};

// Rows of `experts` scores and a position, of this rank and of all that share
// its samples: [ranks·b·s, experts + 1]. Empty on a dry device.
std::vector<double> GatherRows(ParallelContext& context,
                               const AxisStates& states,
                               const std::string& name, const Tensor& scores,
                               const MoeTokens& tokens, int64_t samples) {
  const int64_t local = scores.dim(0) / samples;
  const int64_t experts = scores.dim(1);
  const std::vector<double> values = ValuesOf(scores);
  std::vector<double> rows(scores.dim(0) * (experts + 1));
  for (int64_t i = 0; i < scores.dim(0) && !values.empty(); ++i) {
    const auto row = rows.begin() + i * (experts + 1);
    std::copy_n(values.begin() + i * experts, experts, row);
    row[experts] = PositionOf(tokens, i % local);
  }
  Tensor gathered =
      Upload<double>(context.device(), {scores.dim(0), experts + 1}, rows,
                     MemoryCategory::kCommunication, name);
  for (const Axis axis : {Axis::kContext, Axis::kTensor}) {
    Communicator& group = context.communicators().ForAxis(axis);
    if (states[axis].kind != AxisState::Kind::kShard || group.size() == 1) {
      continue;
    }
    const Tensor all = Tensor::Empty(
        context.device(), {group.size() * gathered.dim(0), experts + 1},
        DType::kFloat64, MemoryCategory::kCommunication, name);
    group.AllGather(gathered, all, name + " scores").Wait();
    gathered = all;
  }
  return Download<double>(gathered);
}

Samples InOrder(const std::vector<double>& rows, int64_t samples, int64_t local,
                int64_t experts, int64_t of_sample) {
  Samples ordered{.tokens = of_sample,
                  .scores = std::vector<double>(samples * of_sample * experts)};
  int64_t found = 0;
  const auto count = static_cast<int64_t>(rows.size()) / (experts + 1);
  for (int64_t i = 0; i < count; ++i) {
    const auto row = rows.begin() + i * (experts + 1);
    const auto position = static_cast<int64_t>(row[experts]);
    if (position == kPaddingPosition) continue;
    CHECK_LT(position, of_sample);
    const int64_t sample = i / local % samples;
    std::copy_n(
        row, experts,
        ordered.scores.begin() + (sample * of_sample + position) * experts);
    ++found;
  }
  CHECK_EQ(found, samples * of_sample) << "tokens of samples on all ranks";
  return ordered;
}

Tensor Choices(Device& device, int64_t rows,
               const std::vector<int32_t>& values) {
  const auto columns = static_cast<int64_t>(values.size()) / rows;
  return Upload<int32_t>(device, {rows, columns}, values,
                         MemoryCategory::kActivations, "choices");
}

// This rank's tokens' rows of what the samples' tokens chose.
std::vector<int32_t> OwnRows(const std::vector<std::vector<int32_t>>& chosen,
                             int64_t local, int64_t columns,
                             const MoeTokens& tokens) {
  std::vector<int32_t> rows;
  for (const std::vector<int32_t>& of_sample : chosen) {
    for (int64_t t = 0; t < local; ++t) {
      const int32_t position = PositionOf(tokens, t);
      if (position == kPaddingPosition) {
        rows.insert(rows.end(), columns, -1);
        continue;
      }
      const auto row = of_sample.begin() + position * columns;
      rows.insert(rows.end(), row, row + columns);
    }
  }
  return rows;
}

TokenChoices ChooseBySample(ParallelContext& context, const AxisStates& states,
                            const std::string& name, const MoeConfig& config,
                            const Tensor& scores,
                            const std::vector<double>& bias, int64_t samples,
                            const MoeTokens& tokens) {
  Device& device = scores.device();
  const bool experts_choose = config.choice == MoeConfig::Choice::kExperts;
  const int64_t columns = experts_choose ? config.experts : config.top_k;
  const int64_t local = scores.dim(0) / samples;
  const std::vector<double> rows =
      GatherRows(context, states, name, scores, tokens, samples);
  if (device.dry()) {
    const Tensor any =
        Choices(device, scores.dim(0),
                std::vector<int32_t>(scores.dim(0) * columns, 0));
    return {.asked = any, .demanded = any, .routed = any};
  }
  const Samples all =
      InOrder(rows, samples, local, config.experts, tokens.of_sample);
  const int64_t capacity = ExpertCapacity(config, tokens.of_sample);
  std::vector<std::vector<int32_t>> asked, routed;
  for (int64_t i = 0; i < samples; ++i) {
    const std::span<const double> of_sample = all.Of(i, config.experts);
    if (experts_choose) {
      asked.push_back(ChooseTokens(config, of_sample, capacity));
      routed.push_back(asked.back());
      continue;
    }
    asked.push_back(ChooseExperts(config, of_sample, bias));
    routed.push_back(asked.back());
    DropOverCapacity(config, of_sample, capacity, routed.back());
  }
  TokenChoices choices;
  choices.demanded =
      Choices(device, scores.dim(0), OwnRows(asked, local, columns, tokens));
  choices.routed =
      Choices(device, scores.dim(0), OwnRows(routed, local, columns, tokens));
  // Weights are looked up for padding too, and go nowhere.
  std::vector<int32_t> looked_up = OwnRows(asked, local, columns, tokens);
  for (size_t i = 0; i < looked_up.size(); ++i) {
    if (looked_up[i] < 0) looked_up[i] = static_cast<int32_t>(i % columns);
  }
  choices.asked = Choices(device, scores.dim(0), looked_up);
  return choices;
}

}  // namespace

Tensor WithoutPaddingRoutes(const Tensor& choices, const MoeTokens& tokens) {
  if (!tokens.has_padding()) return choices;
  const int64_t k = choices.dim(1);
  const auto local = static_cast<int64_t>(tokens.positions.size());
  std::vector<uint8_t> mask(choices.num_elements(), 0);
  for (int64_t i = 0; i < choices.num_elements(); ++i) {
    mask[i] = tokens.positions[i / k % local] == kPaddingPosition ? 1 : 0;
  }
  return MaskedFill(choices,
                    Upload<uint8_t>(choices.device(), choices.shape(), mask),
                    -1, "routes without padding");
}

TokenChoices ChooseRoutes(ParallelContext& context, const AxisStates& states,
                          const std::string& name, const MoeConfig& config,
                          const Tensor& scores, const Tensor& bias,
                          int64_t samples, const MoeTokens& tokens) {
  const std::vector<double> biases =
      bias.defined() ? ValuesOf(bias) : std::vector<double>();
  if (config.chooses_by_sample()) {
    return ChooseBySample(context, states, name, config, scores, biases,
                          samples, tokens);
  }
  TokenChoices choices;
  if (scores.device().dry()) {
    choices.asked = TopK(scores, config.top_k);
  } else {
    choices.asked = Choices(scores.device(), scores.dim(0),
                            ChooseExperts(config, ValuesOf(scores), biases));
  }
  choices.demanded = choices.routed =
      WithoutPaddingRoutes(choices.asked, tokens);
  return choices;
}

}  // namespace trireme
