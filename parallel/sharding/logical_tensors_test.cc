#include "parallel/sharding/logical_tensors.h"

#include <array>
#include <chrono>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Two ranks of one tensor-parallel group.
struct Rank {
  explicit Rank(CommunicatorFactory& factory)
      : device(int64_t{1} << 30),
        grid(ProcessGrid::Create({.tp = 2}, {}, factory.world_rank()).value()),
        communicators(factory, grid),
        context(device, grid, communicators) {}

  // The rank's columns of a [rows, columns] tensor whose elements are numbered.
  TensorPart Columns(const std::string& name, int64_t rows, int64_t columns) {
    const int64_t own = columns / 2;
    const int64_t first = own * grid.coordinate(Axis::kTensor);
    std::vector<float> values;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = first; column < first + own; ++column) {
        values.push_back(static_cast<float>(row * columns + column));
      }
    }
    return {.name = name,
            .global_shape = {rows, columns},
            .shards = {{.axis = Axis::kTensor,
                        .dim = 1,
                        .parts = 2,
                        .index = grid.coordinate(Axis::kTensor)}},
            .local = Tensor::FromValues<float>(device, {rows, own}, values),
            .begin = 0,
            .end = rows * own};
  }

  CpuDevice device;
  ProcessGrid grid;
  Communicators communicators;
  ParallelContext context;
};

TEST(LogicalTensorsTest, PiecesOfShardsBecomeTheTensor) {
  // More than two pieces, whose ends lie within rows.
  constexpr int64_t kRows = 1001, kColumns = 3002;
  RunThreadRanks(2, [&](CommunicatorFactory& factory, int rank_index) {
    Rank rank(factory);
    LogicalGather gather =
        LogicalGather::Create(rank.context, {rank.Columns("w", kRows, kColumns),
                                             rank.Columns("a", 1, 4)})
            .value();
    const int64_t before = rank.device.Statistics().peak_bytes;
    std::vector<std::string> names;
    std::vector<float> whole;
    gather.RunInPieces(
        [&](const SafetensorsEntry& tensor, std::span<const std::byte> piece) {
          names.push_back(tensor.name);
          const auto* values = reinterpret_cast<const float*>(piece.data());
          whole.insert(whole.end(), values, values + piece.size() / 4);
        });
    // The rank's own memory is the model's.
    EXPECT_EQ(rank.device.Statistics().peak_bytes, before);
    if (rank_index != 0) return;
    EXPECT_THAT(names, ElementsAre("a", "w", "w", "w"));
    std::vector<float> expected = {0, 1, 2, 3};
    expected.resize(4 + kRows * kColumns);
    std::iota(expected.begin() + 4, expected.end(), 0.0F);
    EXPECT_TRUE(whole == expected);
  });
}

// A hole would be saved as what the memory held before.
TEST(LogicalTensorsTest, PartsThatLeaveSomeOutAreRefused) {
  RunThreadRanks(2, [&](CommunicatorFactory& factory, int rank_index) {
    Rank rank(factory);
    std::vector<TensorPart> parts = {rank.Columns("w", 4, 4)};
    if (rank_index == 1) parts.clear();
    const auto gather = LogicalGather::Create(rank.context, std::move(parts));
    ASSERT_FALSE(gather.ok());
    if (rank_index != 0) return;
    EXPECT_THAT(MessageOf(gather.status()),
                HasSubstr("tensor 'w': the ranks bring 8 elements, expected "
                          "the 16 of"));
  });
}

// Rank 0 writes for longer than a wait may take.
TEST(LogicalTensorsTest, SlowWritingIsNoHang) {
  constexpr std::chrono::milliseconds kDeadline(300);
  RunThreadRanks(
      2,
      [&](CommunicatorFactory& factory, int /*rank*/) {
        Rank rank(factory);
        LogicalGather gather =
            LogicalGather::Create(rank.context, {rank.Columns("a", 1, 4),
                                                 rank.Columns("b", 1, 4)})
                .value();
        gather.RunInPieces(
            [&](const SafetensorsEntry&, std::span<const std::byte>) {
              std::this_thread::sleep_for(3 * kDeadline);
            });
      },
      kDeadline);
}

}  // namespace
}  // namespace trireme
