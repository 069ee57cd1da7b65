#include "runtime/autograd/parameter.h"

#include <cmath>

#include "runtime/core/log.h"

namespace trireme {
namespace {

double InitialValue(const Initializer& initializer, const RandomStream& random,
                    int64_t index) {
  switch (initializer.kind) {
    case Initializer::Kind::kZeros:
      return 0.0;
    case Initializer::Kind::kOnes:
      return 1.0;
    case Initializer::Kind::kNormal:
      return initializer.stddev * random.Normal(index);
    case Initializer::Kind::kXavierUniform: {
      const double bound = std::sqrt(
          6.0 / static_cast<double>(initializer.fan_in + initializer.fan_out));
      return bound * (2.0 * random.Uniform(index) - 1.0);
    }
  }
  return 0.0;
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
  const RandomStream random({.seed = seed,
                             .sample = StableHash(parameter.name),
                             .purpose = RandomPurpose::kInitialization});
  DispatchFloating(parameter.value.dtype(), [&](auto element) {
    using T = decltype(element);
    T* values = parameter.value.data<T>();
    ForEachLocalRun(parameter.global_shape, parameter.shards,
                    [&](int64_t local, int64_t global, int64_t count) {
                      for (int64_t i = 0; i < count; ++i) {
                        const double value = InitialValue(parameter.initializer,
                                                          random, global + i);
                        values[local + i] =
                            static_cast<T>(static_cast<float>(value));
                      }
                    });
  });
}

}  // namespace trireme
