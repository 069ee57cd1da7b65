// Queries and keys that tp shares are normed over the width of all heads, and
// turned as one rank turns them.

#include "parallel/layers/split_norm.h"

#include <mutex>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/grid/communicators.h"
#include "runtime/autograd/functions.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/normalization.h"

namespace trireme {
namespace {

constexpr int64_t kBatch = 2;
constexpr int64_t kTokens = 3;
constexpr int64_t kRows = kBatch * kTokens;
constexpr int64_t kHeadDim = 4;
constexpr int64_t kWidth = 4 * kHeadDim;
constexpr double kEps = 1e-3;

std::vector<double> Normal(uint64_t seed, int64_t count) {
  const RandomStream random({.seed = seed});
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(random.Normal(i));
  return values;
}

// Columns [begin, end) of each kWidth of the values.
std::vector<double> Columns(const std::vector<double>& values, int64_t begin,
                            int64_t end) {
  std::vector<double> part;
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t column = static_cast<int64_t>(i) % kWidth;
    if (column >= begin && column < end) part.push_back(values[i]);
  }
  return part;
}

RopeTable Rope(Device& device) {
  const int64_t axes[] = {kHeadDim};
  const double positions[] = {0, 1, 2};
  return MakeRopeTable(device, axes, positions, 10000, DType::kFloat64);
}

struct Found {
  std::vector<double> y, dqkv, dq_weight, dk_weight;
};

// One weight of all heads: columns [begin, end).
void Fill(Device& device, int64_t begin, int64_t end, uint64_t seed,
          Parameter& weight) {
  weight.name = "norm.weight";
  weight.global_shape = {kWidth};
  weight.dtype = DType::kFloat64;
  weight.value = Tensor::FromValues<double>(
      device, {end - begin}, Columns(Normal(seed, kWidth), begin, end));
  weight.grad = Tensor::Zeros(device, {end - begin}, DType::kFloat64);
  const int64_t columns = end - begin;
  if (columns < kWidth) {
    weight.shards = {{Axis::kTensor, 0, static_cast<int>(kWidth / columns),
                      static_cast<int>(begin / columns)}};
  }
}

// Columns [begin, end) of q, k and v through `norm`.
template <typename Norm>
Found Differentiate(Device& device, int64_t begin, int64_t end,
                    const Norm& norm) {
  const int64_t columns = end - begin;
  const auto packed = [&](uint64_t seed) {
    return Tensor::FromValues<double>(
        device, {kBatch, kTokens, 3 * columns},
        Columns(Normal(seed, kRows * 3 * kWidth), begin, end));
  };
  Parameter q_weight, k_weight;
  Fill(device, begin, end, 2, q_weight);
  Fill(device, begin, end, 3, k_weight);
  Tape tape(device);
  const Variable qkv = tape.Leaf(packed(1));
  const RopeTable rope = Rope(device);
  const Variable outputs[] = {norm(tape, qkv,
                                   HeadNorms{.q_weight = &q_weight,
                                             .k_weight = &k_weight,
                                             .rope = &rope,
                                             .eps = kEps})};
  Found found{.y = outputs[0].value().template ToVector<double>()};
  tape.Backward(outputs, {packed(4)}, Tape::WeightGradients::kImmediate);
  found.dqkv = tape.TakeGradient(qkv).template ToVector<double>();
  found.dq_weight = q_weight.grad.ToVector<double>();
  found.dk_weight = k_weight.grad.ToVector<double>();
  return found;
}

void ExpectNear(const std::vector<double>& found,
                const std::vector<double>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(found[i], expected[i], 1e-13) << i;
  }
}

// q, k and v apart, through the norm of rows and the rotation of heads.
Variable Reference(Tape& tape, const Variable& qkv, const HeadNorms& norms) {
  const Variable flat = Reshape(tape, qkv, {kRows, 3 * kWidth});
  std::vector<Variable> parts = SplitColumns(tape, flat, 3);
  Variable packed;
  Parameter* const weights[] = {norms.q_weight, norms.k_weight, nullptr};
  for (int i = 0; i < 3; ++i) {
    Variable part = parts[i];
    if (weights[i] != nullptr) {
      part = Norm(tape, NormKind::kRms, part, weights[i], nullptr, norms.eps);
    }
    // As tokens of [rows, 3, width], which are columns of [rows, 3·width].
    part = Reshape(tape, part, {kRows, 1, kWidth});
    packed = i == 0 ? part : ConcatTokens(tape, packed, part);
  }
  packed = Reshape(tape, packed, {kBatch, kTokens, 3 * kWidth});
  return NormHeads(tape, packed, kHeadDim, {.rope = norms.rope});
}

TEST(NormAcrossHeadsTest, IsTheNormOverTheWholeWidth) {
  CpuDevice device(1 << 24);
  const Found whole = Differentiate(device, 0, kWidth, Reference);
  for (const int tp : {1, 2, 4}) {
    SCOPED_TRACE(tp);
    std::mutex mutex;
    RunThreadRanks(tp, [&](CommunicatorFactory& factory, int rank) {
      CpuDevice own(1 << 24);
      const ProcessGrid grid = *ProcessGrid::Create({.tp = tp}, {}, rank);
      Communicators communicators(factory, grid);
      ParallelContext parallel(own, grid, communicators);
      const int64_t columns = kWidth / tp;
      const int64_t begin = rank * columns;
      const Found found = Differentiate(
          own, begin, begin + columns,
          [&](Tape& tape, const Variable& qkv, const HeadNorms& norms) {
            ForwardContext context{tape, parallel};
            AxisStates states;
            states[Axis::kTensor] = AxisState::Shard(2);
            return NormAcrossHeads(context, {qkv, states}, kHeadDim, norms)
                .variable;
          });
      CHECK_OK(parallel.status());
      const std::lock_guard lock(mutex);
      ExpectNear(found.y, Columns(whole.y, begin, begin + columns));
      ExpectNear(found.dqkv, Columns(whole.dqkv, begin, begin + columns));
      ExpectNear(found.dq_weight,
                 Columns(whole.dq_weight, begin, begin + columns));
      ExpectNear(found.dk_weight,
                 Columns(whole.dk_weight, begin, begin + columns));
    });
  }
}

TEST(NormAcrossHeadsTest, RefusesHeadsThatAreNotSharded) {
  CpuDevice device(1 << 24);
  RunThreadRanks(1, [&](CommunicatorFactory& factory, int) {
    const ProcessGrid grid;
    Communicators communicators(factory, grid);
    ParallelContext parallel(device, grid, communicators);
    Differentiate(
        device, 0, kWidth,
        [&](Tape& tape, const Variable& qkv, const HeadNorms& norms) {
          ForwardContext context{tape, parallel};
          return NormAcrossHeads(context, {qkv, {}}, kHeadDim, norms).variable;
        });
    EXPECT_NE(MessageOf(parallel.status()).find("expected Shard(last)"),
              std::string::npos)
        << parallel.status();
  });
}

}  // namespace
}  // namespace trireme
