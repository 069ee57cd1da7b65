#include "runtime/autograd/parameter.h"

#include <cmath>

#include "runtime/core/log.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/random.h"

namespace trireme {
namespace {

// Where elements of the logical tensor lie in this rank's part.
std::vector<ElementRun> LocalRuns(const Parameter& parameter) {
  std::vector<ElementRun> runs;
  ForEachLocalRun(
      parameter.global_shape, parameter.shards,
      [&](int64_t local, int64_t global, int64_t count) {
        runs.push_back({.from = global, .to = local, .count = count});
      });
  return runs;
}

}  // namespace

Shape LocalShape(const Shape& global, const std::vector<ShardedDim>& shards) {
  Shape local = global;
  for (const ShardedDim& shard : shards) {
    CHECK_EQ(local.dim(shard.dim) % shard.parts, 0)
        << "dim " << shard.dim << " of " << global << " over " << shard.axis;
    local.set_dim(shard.dim, local.dim(shard.dim) / shard.parts);
  }
  return local;
}

int64_t Parameter::local_elements() const {
  return LocalShape(global_shape, shards).num_elements();
}

void InitializeParameter(uint64_t seed, Parameter& parameter) {
  if (parameter.value.device().dry()) return;
  const Initializer& initializer = parameter.initializer;
  const auto random = [&](Distribution distribution, double scale) {
    const RandomStream stream({.seed = seed,
                               .sample = StableHash(parameter.name),
                               .purpose = RandomPurpose::kInitialization});
    FillRandom(stream, distribution, scale, LocalRuns(parameter),
               parameter.value);
  };
  switch (initializer.kind) {
    case Initializer::Kind::kZeros:
      return Fill(parameter.value, 0.0);
    case Initializer::Kind::kOnes:
      return Fill(parameter.value, 1.0);
    case Initializer::Kind::kConstant:
      return Fill(parameter.value, initializer.value);
    case Initializer::Kind::kNormal:
      return random(Distribution::kNormal, initializer.stddev);
    case Initializer::Kind::kXavierUniform:
      return random(Distribution::kUniform,
                    std::sqrt(6.0 / static_cast<double>(initializer.fan_in +
                                                        initializer.fan_out)));
  }
}

}  // namespace trireme
