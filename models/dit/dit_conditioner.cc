#include "models/dit/dit_conditioner.h"

#include <cmath>

#include "models/transformer/streams.h"
#include "parallel/layers/functional.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

constexpr double kTimeScale = 1000.0;
constexpr double kMaxPeriod = 10000.0;
constexpr double kFrequencies = kScalarChannels / 2;

}  // namespace

Tensor DitSinusoid(const DitConfig& config, const Tensor& times, DType dtype) {
  // Frequency i is period^(−i/n); the last of n is 1/10000 if the period is
  // 10000^(n/(n−1)).
  const double period =
      config.conditions_per_block
          ? std::pow(kMaxPeriod, kFrequencies / (kFrequencies - 1))
          : kMaxPeriod;
  return TimestepEmbedding(Scale(times, kTimeScale), kScalarChannels, period,
                           dtype);
}

DitConditioner::DitConditioner(ParameterStore& store, const std::string& prefix,
                               const DitConfig& config)
    : time_(store, prefix + "time_embedding", kScalarChannels, config.hidden) {
  if (config.classes == 0) return;
  class_table_ = &store.Create(
      prefix + "class_embedding.table", {config.classes + 1, config.hidden}, {},
      {.kind = Initializer::Kind::kNormal, .stddev = config.class_table_stddev},
      /*decay=*/false);
}

ShardedVariable DitConditioner::Forward(ForwardContext& context,
                                        const DitConditions& conditions) const {
  const ShardedVariable c =
      time_.Forward(context, BatchConstant(conditions.sinusoid));
  if (class_table_ == nullptr) return c;
  return Add(context, c,
             EmbeddingLookup(context, *class_table_, conditions.labels,
                             BatchStates()));
}

}  // namespace trireme
