#include "runtime/ops/sparse_convolution.h"

#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/ops_testing.h"
#include "runtime/ops/voxels.h"
#include "runtime/ops/voxels_testing.h"

namespace trireme {
namespace {

constexpr int64_t kIn = 3, kOut = 2;

// Where all cells are there it is a dense convolution with zeros about it, by
// the formula; where some are not, that of zeros in their place.
TEST(SparseConvolutionTest, IsADenseConvolutionOfWhatIsThere) {
  CpuDevice device(kPlenty);
  constexpr int32_t kSide = 10;
  const auto some = [](Cell cell) {
    return (cell[0] + 2 * cell[1] + 3 * cell[2]) % 5 != 0;
  };
  const std::vector<std::vector<Cell>> samples = {
      CellsWhere(kSide, [](Cell) { return true; }), CellsWhere(kSide, some)};
  const int64_t most = kSide * kSide * kSide;
  const Tensor neighbors =
      VoxelNeighbors(VoxelsOf(device, most, samples), kSide);
  const Tensor x =
      RandomTensor(device, {2 * most, kIn}, DType::kFloat64, /*seed=*/1);
  const Tensor weight =
      RandomTensor(device, {kOut, 27, kIn}, DType::kFloat64, /*seed=*/2);
  const Tensor bias = RandomTensor(device, {kOut}, DType::kFloat64, 3);
  const std::vector<double> values = Doubles(x), w = Doubles(weight),
                            b = Doubles(bias);
  const std::vector<double> got =
      Doubles(SparseConvolve(x, neighbors, weight, &bias));
  for (int64_t sample = 0; sample < 2; ++sample) {
    const std::vector<Cell>& cells = samples[sample];
    // The dense picture, by cell.
    std::vector<double> dense(most * kIn, 0.0);
    const auto at = [](const Cell& c) {
      return (c[2] * kSide + c[1]) * kSide + c[0];
    };
    for (size_t i = 0; i < cells.size(); ++i) {
      for (int64_t c = 0; c < kIn; ++c) {
        dense[at(cells[i]) * kIn + c] = values[(sample * most + i) * kIn + c];
      }
    }
    for (size_t i = 0; i < cells.size(); ++i) {
      for (int64_t o = 0; o < kOut; ++o) {
        double expected = b[o];
        for (int32_t j = 0; j < 27; ++j) {
          const Cell from = {cells[i][0] + j % 3 - 1,
                             cells[i][1] + j / 3 % 3 - 1,
                             cells[i][2] + j / 9 - 1};
          bool inside = true;
          for (const int32_t c : from) inside &= c >= 0 && c < kSide;
          for (int64_t c = 0; inside && c < kIn; ++c) {
            expected += w[(o * 27 + j) * kIn + c] * dense[at(from) * kIn + c];
          }
        }
        ASSERT_NEAR(got[(sample * most + i) * kOut + o], expected, 1e-12)
            << sample << " " << i;
      }
    }
  }
}

// What is gathered is cut into blocks: more rows than one has, with the same
// result as in parts.
TEST(SparseConvolutionTest, BlocksOfRowsDoNotShow) {
  CpuDevice device(kPlenty);
  constexpr int32_t kSide = 12;
  constexpr int64_t kWide = 100;
  const Tensor neighbors =
      VoxelNeighbors(VoxelsOf(device, kSide * kSide * kSide,
                              {CellsWhere(kSide, [](Cell) { return true; })}),
                     kSide);
  const int64_t rows = kSide * kSide * kSide;
  ASSERT_GT(rows * 27 * kWide, int64_t{1} << 22);
  const Tensor x = RandomTensor(device, {rows, kWide}, DType::kFloat64, 1);
  const Tensor weight =
      RandomTensor(device, {kOut, 27, kWide}, DType::kFloat64, 2);
  const std::vector<double> y =
      Doubles(SparseConvolve(x, neighbors, weight, nullptr));
  const std::vector<int32_t> table = neighbors.ToVector<int32_t>();
  const std::vector<double> values = Doubles(x), w = Doubles(weight);
  for (const int64_t row : {int64_t{0}, int64_t{776}, int64_t{777}, rows - 1}) {
    double expected = 0;
    for (int64_t j = 0; j < 27; ++j) {
      const int32_t from = table[row * 27 + j];
      for (int64_t c = 0; from >= 0 && c < kWide; ++c) {
        expected += w[j * kWide + c] * values[from * kWide + c];
      }
    }
    EXPECT_NEAR(y[row * kOut], expected, 1e-10) << row;
  }
}

// Padding reads nothing, and nothing reads padding, forward or backward.
TEST(SparseConvolutionTest, PaddingIsNotTouched) {
  CpuDevice device(kPlenty);
  const Tensor neighbors = VoxelNeighbors(
      VoxelsOf(device, 6, {{{1, 1, 1}, {2, 1, 1}}, {{0, 0, 0}}}), 4);
  const Tensor weight =
      RandomTensor(device, {kOut, 27, kIn}, DType::kFloat64, 2);
  const auto run = [&](double padding) {
    std::vector<double> values(12 * kIn, padding), slopes(12 * kOut, padding);
    for (const int64_t row : {0, 1, 6}) {
      std::fill_n(values.begin() + row * kIn, kIn, 0.5);
      std::fill_n(slopes.begin() + row * kOut, kOut, 2.0);
    }
    const Tensor x = Tensor::FromValues<double>(device, {12, kIn}, values);
    const Tensor dy = Tensor::FromValues<double>(device, {12, kOut}, slopes);
    std::vector<std::vector<double>> results = {
        Doubles(SparseConvolve(x, neighbors, weight, nullptr)),
        Doubles(SparseConvolveInputGradient(dy, neighbors, weight))};
    return results;
  };
  EXPECT_EQ(run(0), run(1e6));
  const std::vector<double> y = run(1)[0];
  for (const int64_t row : {2, 5, 7, 11}) {
    EXPECT_EQ(y[row * kOut], 0) << row;
  }
}

}  // namespace
}  // namespace trireme
