// One rank without others, whose parameters are another implementation's.

#ifndef TRIREME_TESTS_GOLDENS_GOLDEN_RANK_TESTING_H_
#define TRIREME_TESTS_GOLDENS_GOLDEN_RANK_TESTING_H_

#include <string>

#include "gtest/gtest.h"
#include "parallel/grid/communicators.h"
#include "parallel/grid/context.h"
#include "parallel/grid/process_grid.h"
#include "parallel/parameters/parameter_store.h"
#include "runtime/autograd/tape.h"
#include "runtime/comm/single.h"
#include "runtime/device/device.h"
#include "tests/goldens/golden_file_testing.h"

namespace trireme {

struct GoldenRank {
  explicit GoldenRank(Device& device)
      : communicators(world, grid),
        parallel(device, grid, communicators),
        store(device, DType::kFloat64, /*seed=*/0) {}

  // By parameter, from tensors `prefix`NAME of our names.
  GoldenFile::Values OwnNames(const GoldenFile& file,
                              const std::string& prefix) const {
    GoldenFile::Values values;
    for (const auto& parameter : store.parameters()) {
      const Tensor golden = file.Golden(prefix + parameter->name);
      EXPECT_EQ(golden.shape(), parameter->global_shape) << parameter->name;
      values[parameter->name] = Doubles(golden);
    }
    return values;
  }

  // Of all parameters; gradients are zeros.
  void SetWeights(const GoldenFile::Values& weights) {
    ASSERT_EQ(weights.size(), store.parameters().size());
    for (const auto& parameter : store.parameters()) {
      parameter->value.CopyFrom(
          Tensor::FromValues<double>(store.device(), parameter->global_shape,
                                     weights.at(parameter->name)));
      parameter->grad = Tensor::Zeros(store.device(), parameter->global_shape,
                                      DType::kFloat64);
    }
  }

  void ExpectGradients(const GoldenFile::Values& gradients) const {
    for (const auto& parameter : store.parameters()) {
      ExpectNear(Doubles(parameter->grad), gradients.at(parameter->name),
                 parameter->name);
    }
  }

  SingleWorld world;
  const ProcessGrid grid;
  Communicators communicators;
  ParallelContext parallel;
  ParameterStore store;
};

// Of the losses that the tape has since the last call.
inline double WeightedSum(Tape& tape) {
  double sum = 0;
  for (const Tape::Loss& loss : tape.TakeLosses()) {
    sum += loss.weight * Doubles(loss.value)[0];
  }
  return sum;
}

}  // namespace trireme

#endif  // TRIREME_TESTS_GOLDENS_GOLDEN_RANK_TESTING_H_
