// A norm over a width that tp shards is the norm over the whole width.

#include "parallel/split_norm.h"

#include <mutex>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/communicators.h"
#include "runtime/autograd/functions.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

constexpr int64_t kRows = 6;
constexpr int64_t kWidth = 8;
constexpr double kEps = 1e-3;

std::vector<double> Normal(uint64_t seed, int64_t count) {
  const RandomStream random({.seed = seed});
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(random.Normal(i));
  return values;
}

// Columns [begin, end) of values[rows, kWidth].
std::vector<double> Columns(const std::vector<double>& values, int64_t begin,
                            int64_t end) {
  std::vector<double> part;
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t column = static_cast<int64_t>(i) % kWidth;
    if (column >= begin && column < end) part.push_back(values[i]);
  }
  return part;
}

struct Found {
  std::vector<double> y, dx, dweight;
};

// Columns [begin, end) of x, weight and dy through `norm`.
template <typename Norm>
Found Differentiate(Device& device, int64_t begin, int64_t end,
                    const Norm& norm) {
  const int64_t columns = end - begin;
  const auto tensor = [&](const Shape& shape, uint64_t seed, int64_t rows) {
    return Tensor::FromValues<double>(
        device, shape, Columns(Normal(seed, rows * kWidth), begin, end));
  };
  Parameter weight;
  weight.name = "norm.weight";
  weight.global_shape = {kWidth};
  weight.dtype = DType::kFloat64;
  weight.value = tensor({columns}, 2, 1);
  weight.grad = Tensor::Zeros(device, {columns}, DType::kFloat64);
  if (columns < kWidth) {
    weight.shards = {{Axis::kTensor, 0, static_cast<int>(kWidth / columns),
                      static_cast<int>(begin / columns)}};
  }
  Tape tape(device);
  const Variable x = tape.Leaf(tensor({2, kRows / 2, columns}, 1, kRows));
  const Variable outputs[] = {norm(tape, x, weight)};
  Found found{.y = outputs[0].value().template ToVector<double>()};
  tape.Backward(outputs, {tensor({2, kRows / 2, columns}, 3, kRows)},
                Tape::WeightGradients::kImmediate);
  found.dx = tape.TakeGradient(x).template ToVector<double>();
  found.dweight = weight.grad.ToVector<double>();
  return found;
}

void ExpectNear(const std::vector<double>& found,
                const std::vector<double>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(found[i], expected[i], 1e-13) << i;
  }
}

TEST(SplitRmsNormTest, IsTheNormOverTheWholeWidth) {
  CpuDevice device(1 << 24);
  const Found whole = Differentiate(
      device, 0, kWidth, [](Tape& tape, const Variable& x, Parameter& weight) {
        return Norm(tape, NormKind::kRms, x, &weight, nullptr, kEps);
      });
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
      const Found found =
          Differentiate(own, begin, begin + columns,
                        [&](Tape& tape, const Variable& x, Parameter& weight) {
                          ForwardContext context{tape, parallel};
                          AxisStates states;
                          states[Axis::kTensor] = AxisState::Shard(2);
                          return SplitRmsNorm(context, {x, states}, weight,
                                              Axis::kTensor, kEps)
                              .variable;
                        });
      CHECK_OK(parallel.status());
      const std::lock_guard lock(mutex);
      ExpectNear(found.y, Columns(whole.y, begin, begin + columns));
      ExpectNear(found.dx, Columns(whole.dx, begin, begin + columns));
      ExpectNear(found.dweight, Columns(whole.dweight, begin, begin + columns));
    });
  }
}

TEST(SplitRmsNormTest, RefusesAWidthThatIsNotSharded) {
  CpuDevice device(1 << 24);
  RunThreadRanks(1, [&](CommunicatorFactory& factory, int) {
    const ProcessGrid grid;
    Communicators communicators(factory, grid);
    ParallelContext parallel(device, grid, communicators);
    Differentiate(device, 0, kWidth,
                  [&](Tape& tape, const Variable& x, Parameter& weight) {
                    ForwardContext context{tape, parallel};
                    return SplitRmsNorm(context, {x, {}}, weight, Axis::kTensor,
                                        kEps)
                        .variable;
                  });
    EXPECT_NE(MessageOf(parallel.status()).find("expected Shard(last)"),
              std::string::npos)
        << parallel.status();
  });
}

}  // namespace
}  // namespace trireme
