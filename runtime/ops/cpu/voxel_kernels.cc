#include "runtime/ops/cpu/voxel_kernels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "runtime/core/log.h"
#include "runtime/core/voxel_order.h"
#include "runtime/ops/cpu/parallel_rows.h"

namespace trireme {
namespace {

// As much work as so many elements are: a search for each neighbour.
constexpr int64_t kNeighborsWork = 27 * 16;
constexpr double kLongestPeriod = 10000;
constexpr int64_t kRowBits = 32;

// One sample's cells.
class SampleVoxels {
 public:
  SampleVoxels(const VoxelArguments& a, int64_t sample)
      : voxels_(a.voxels + sample * a.tokens * 3), resolution_(a.resolution) {
    // Padding comes last.
    int64_t low = 0, high = a.tokens;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (voxels_[3 * middle] >= 0) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    count_ = low;
  }

  int64_t count() const { return count_; }
  const int32_t* operator[](int64_t i) const { return voxels_ + 3 * i; }

  // The cell there, or −1.
  int64_t Find(int64_t x, int64_t y, int64_t z) const {
    for (const int64_t coordinate : {x, y, z}) {
      if (coordinate < 0 || coordinate >= resolution_) return -1;
    }
    const int64_t rank = VoxelRank(x, y, z, resolution_);
    int64_t low = 0, high = count_;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (RankOf(middle) < rank) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low < count_ && RankOf(low) == rank ? low : -1;
  }

 private:
  int64_t RankOf(int64_t i) const {
    const int32_t* voxel = (*this)[i];
    return VoxelRank(voxel[0], voxel[1], voxel[2], resolution_);
  }

  const int32_t* voxels_;
  int64_t resolution_;
  int64_t count_;
};

template <typename T>
void CoarsenSample(const CoarseVoxelArguments& a, int64_t sample) {
  const SampleVoxels fine(a.fine, sample);
  const int64_t n = a.fine.tokens;
  const int64_t resolution = (a.fine.resolution + 1) / 2;
  int64_t* const keys = a.keys + sample * n;
  for (int64_t i = 0; i < fine.count(); ++i) {
    const int32_t* voxel = fine[i];
    keys[i] = VoxelRank(voxel[0] / 2, voxel[1] / 2, voxel[2] / 2, resolution)
                  << kRowBits |
              i;
  }
  std::sort(keys, keys + fine.count());
  int32_t* const voxels = a.voxels + sample * a.most * 3;
  int32_t* const parents = a.parents + sample * n;
  int32_t* const children = a.children + sample * a.most * 8;
  T* const shares = static_cast<T*>(a.shares) + sample * a.most;
  std::fill(voxels, voxels + a.most * 3, -1);
  std::fill(parents, parents + n, -1);
  std::fill(children, children + a.most * 8, -1);
  std::fill(shares, shares + a.most, T{});
  int64_t found = 0, last_rank = -1;
  for (int64_t k = 0; k < fine.count(); ++k) {
    const int64_t rank = keys[k] >> kRowBits;
    const int64_t row = keys[k] & ((int64_t{1} << kRowBits) - 1);
    const int32_t* voxel = fine[row];
    if (rank != last_rank) {
      CHECK_LT(found, a.most) << "coarser voxels of a sample";
      for (int axis = 0; axis < 3; ++axis) {
        voxels[3 * found + axis] = voxel[axis] / 2;
      }
      last_rank = rank;
      ++found;
    }
    const int64_t parent = found - 1;
    const int64_t child =
        voxel[0] % 2 + 2 * (voxel[1] % 2) + 4 * (voxel[2] % 2);
    children[8 * parent + child] = static_cast<int32_t>(sample * n + row);
    parents[row] = static_cast<int32_t>(sample * a.most + parent);
  }
  for (int64_t i = 0; i < found; ++i) {
    const int64_t cells = std::count_if(children + 8 * i, children + 8 * i + 8,
                                        [](int32_t row) { return row >= 0; });
    shares[i] = static_cast<T>(1 / static_cast<ComputeType<T>>(cells));
  }
  a.counts[sample] = static_cast<int32_t>(found);
}

}  // namespace

void VoxelNeighborsKernel(const VoxelArguments& a, int32_t* neighbors) {
  for (int64_t sample = 0; sample < a.batch; ++sample) {
    const SampleVoxels cells(a, sample);
    const int64_t first = sample * a.tokens;
    ParallelRows(a.tokens, kNeighborsWork, [&](int64_t i) {
      int32_t* to = neighbors + (first + i) * 27;
      if (i >= cells.count()) {
        std::fill(to, to + 27, -1);
        return;
      }
      const int32_t* voxel = cells[i];
      for (int offset = 0; offset < 27; ++offset) {
        const int64_t found =
            cells.Find(voxel[0] + offset % 3 - 1, voxel[1] + offset / 3 % 3 - 1,
                       voxel[2] + offset / 9 - 1);
        to[offset] = static_cast<int32_t>(found < 0 ? -1 : first + found);
      }
    });
  }
}

void CoarsenVoxelsKernel(const CoarseVoxelArguments& a) {
  DispatchFloating(a.dtype, [&]<typename T>(T) {
    ParallelRows(a.fine.batch, a.fine.tokens * 32,
                 [&](int64_t sample) { CoarsenSample<T>(a, sample); });
  });
}

std::vector<int64_t> VoxelWindowsKernel(const VoxelWindowArguments& a) {
  const int32_t shift = a.shifted ? kVoxelBlock / 2 : 0;
  std::vector<int64_t> offsets;
  for (int64_t sample = 0; sample < a.voxels.batch; ++sample) {
    const SampleVoxels cells(a.voxels, sample);
    const auto first = static_cast<int32_t>(sample * a.voxels.tokens);
    const auto window = [&](int32_t row) {
      const int32_t* voxel = cells[row - first];
      std::array<int64_t, 3> at;
      for (int axis = 0; axis < 3; ++axis) {
        at[axis] = (voxel[2 - axis] + shift) / kVoxelBlock;
      }
      return at;
    };
    int32_t* const order = a.order + first;
    std::iota(order, order + a.voxels.tokens, first);
    std::stable_sort(order, order + cells.count(), [&](int32_t i, int32_t j) {
      return window(i) < window(j);
    });
    for (int64_t i = 0; i < a.voxels.tokens; ++i) {
      if (i == 0 || i >= cells.count() ||
          window(order[i]) != window(order[i - 1])) {
        offsets.push_back(first + i);
      }
      a.places[order[i]] = static_cast<int32_t>(first + i);
    }
  }
  offsets.push_back(a.voxels.batch * a.voxels.tokens);
  return offsets;
}

void VoxelPositionsKernel(const VoxelArguments& a, int64_t width, DType dtype,
                          void* positions) {
  const int64_t frequencies = width / 6;
  DispatchFloating(dtype, [&]<typename T>(T) {
    ParallelRows(a.batch * a.tokens, width, [&](int64_t row) {
      const int32_t* voxel = a.voxels + 3 * row;
      T* to = static_cast<T*>(positions) + row * width;
      std::fill(to, to + width, T{});
      if (voxel[0] < 0) return;
      for (int axis = 0; axis < 3; ++axis) {
        for (int64_t i = 0; i < frequencies; ++i) {
          const double angle =
              voxel[axis] *
              std::pow(kLongestPeriod, -static_cast<double>(i) /
                                           static_cast<double>(frequencies));
          using C = ComputeType<T>;
          to[i] = static_cast<T>(static_cast<C>(std::sin(angle)));
          to[frequencies + i] = static_cast<T>(static_cast<C>(std::cos(angle)));
        }
        to += 2 * frequencies;
      }
    });
  });
}

}  // namespace trireme
