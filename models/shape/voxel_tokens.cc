#include "models/shape/voxel_tokens.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "models/shape/sharp_edges.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/core/voxel_order.h"

namespace trireme {
namespace {

using Voxel = std::array<int32_t, 3>;  // x, y, z

// Cells of a grid of n a side by number, x fastest.
class Cells {
 public:
  explicit Cells(int64_t n) : n_(n) {}

  int64_t At(int64_t x, int64_t y, int64_t z) const {
    return (z * n_ + y) * n_ + x;
  }
  Voxel Of(int64_t cell) const {
    return {static_cast<int32_t>(cell % n_),
            static_cast<int32_t>(cell / n_ % n_),
            static_cast<int32_t>(cell / (n_ * n_))};
  }
  bool Has(const Voxel& place) const {
    return std::all_of(place.begin(), place.end(),
                       [this](int32_t i) { return i >= 0 && i < n_; });
  }
  bool AtBorder(const Voxel& place) const {
    return std::any_of(place.begin(), place.end(),
                       [this](int32_t i) { return i == 0 || i == n_ - 1; });
  }
  int64_t At(const Voxel& place) const {
    return At(place[0], place[1], place[2]);
  }

 private:
  int64_t n_;
};

constexpr uint8_t kInside = 1;
constexpr uint8_t kOutside = 2;

// Adds to each cell's sides those of the two beside it along the axis of
// `stride`; what lies beyond the grid is outside.
void SpreadSides(int64_t n, int64_t stride, std::vector<uint8_t>& sides) {
  const auto cells = static_cast<int64_t>(sides.size());
  for (int64_t line = 0; line < cells; ++line) {
    if (line / stride % n != 0) continue;
    uint8_t before = kOutside;
    for (int64_t i = 0; i < n; ++i) {
      uint8_t& cell = sides[line + i * stride];
      const uint8_t after =
          i + 1 < n ? sides[line + (i + 1) * stride] : kOutside;
      const uint8_t own = cell;
      cell |= before | after;
      before = own;
    }
  }
}

// By cell: both sides where it is near the surface.
std::vector<uint8_t> SidesAbout(std::span<const float> distances, int64_t n,
                                float level) {
  std::vector<uint8_t> sides(distances.size());
  for (size_t i = 0; i < sides.size(); ++i) {
    sides[i] = distances[i] < level ? kInside : kOutside;
  }
  for (const int64_t stride : {int64_t{1}, n, n * n}) {
    SpreadSides(n, stride, sides);
  }
  return sides;
}

// The cell `i` of the cube at `voxel`.
Voxel CellOf(const Voxel& voxel, int64_t i, int32_t patch) {
  const auto at = static_cast<int32_t>(i);
  return {voxel[0] * patch + at % patch, voxel[1] * patch + at / patch % patch,
          voxel[2] * patch + at / (patch * patch)};
}

// Gives each group of unknown cells that touch by their faces its side:
// ±`cut_off`.
void FillUnknown(const std::vector<bool>& known, const Cells& cells,
                 float cut_off, std::vector<float>& distances) {
  std::vector<bool> seen = known;
  std::vector<int64_t> group;
  for (size_t first = 0; first < seen.size(); ++first) {
    if (seen[first]) continue;
    group.assign(1, static_cast<int64_t>(first));
    seen[first] = true;
    bool reaches_border = false;
    int64_t outside = 0;  // of neighbours that are known, more than inside
    for (size_t next = 0; next < group.size(); ++next) {
      const Voxel place = cells.Of(group[next]);
      reaches_border = reaches_border || cells.AtBorder(place);
      for (int side = 0; side < 6; ++side) {
        Voxel other = place;
        other[side / 2] += side % 2 == 0 ? -1 : 1;
        if (!cells.Has(other)) continue;
        const int64_t at = cells.At(other);
        if (known[at]) {
          outside += distances[at] < 0 ? -1 : 1;
        } else if (!seen[at]) {
          seen[at] = true;
          group.push_back(at);
        }
      }
    }
    const float value = reaches_border || outside >= 0 ? cut_off : -cut_off;
    for (const int64_t cell : group) distances[cell] = value;
  }
}

// The VoxelKind of each cube; −1: it is none of the tokens.
std::vector<int32_t> KindsOfCubes(std::span<const float> distances,
                                  const VoxelShape& shape) {
  const Cells cells(shape.cells), cubes(shape.lattice()),
      groups(shape.lattice() / shape.whole);
  const std::vector<uint8_t> sides =
      SidesAbout(distances, shape.cells, shape.thickened());
  std::vector<int64_t> near;
  for (int64_t cell = 0; cell < shape.values(); ++cell) {
    if (sides[cell] == (kInside | kOutside)) near.push_back(cell);
  }
  const std::vector<bool> sharp =
      AtSharpEdges(distances, shape.cells, shape.thickened(), near);
  const auto group_of = [&](const Voxel& cube) {
    return groups.At(cube[0] / shape.whole, cube[1] / shape.whole,
                     cube[2] / shape.whole);
  };
  const int64_t lattice = shape.lattice();
  std::vector<int32_t> kinds(lattice * lattice * lattice, -1);
  std::vector<bool> occupied(kinds.size(), false);  // groups
  for (size_t i = 0; i < near.size(); ++i) {
    Voxel cube = cells.Of(near[i]);
    for (int32_t& coordinate : cube) coordinate /= shape.patch;
    int32_t& kind = kinds[cubes.At(cube)];
    kind = std::max<int32_t>(kind, sharp[i] ? kVoxelAtEdge : kVoxelNear);
    occupied[group_of(cube)] = true;
  }
  for (size_t i = 0; i < kinds.size(); ++i) {
    const Voxel cube = cubes.Of(static_cast<int64_t>(i));
    if (kinds[i] < 0 && occupied[group_of(cube)]) kinds[i] = kVoxelBeside;
  }
  return kinds;
}

}  // namespace

VoxelSet VoxelTokens(std::span<const float> distances,
                     const VoxelShape& shape) {
  CHECK_EQ(static_cast<int64_t>(distances.size()), shape.values());
  CHECK_EQ(shape.lattice() % shape.whole, 0);
  const Cells cells(shape.cells), cubes(shape.lattice());
  const float thicker = shape.thickened();
  const float cut_off = shape.cut_off();
  const int64_t lattice = shape.lattice();
  const std::vector<int32_t> kinds = KindsOfCubes(distances, shape);
  std::vector<std::pair<int64_t, Voxel>> sorted;
  for (size_t cube = 0; cube < kinds.size(); ++cube) {
    if (kinds[cube] < 0) continue;
    const Voxel voxel = cubes.Of(static_cast<int64_t>(cube));
    sorted.emplace_back(VoxelRank(voxel[0], voxel[1], voxel[2], lattice),
                        voxel);
  }
  std::sort(sorted.begin(), sorted.end());
  VoxelSet set;
  for (const auto& [rank, voxel] : sorted) {
    set.voxels.insert(set.voxels.end(), voxel.begin(), voxel.end());
    set.kinds.push_back(kinds[cubes.At(voxel)]);
    for (int64_t i = 0; i < shape.token_channels(); ++i) {
      const float distance =
          distances[cells.At(CellOf(voxel, i, shape.patch))] - thicker;
      set.features.push_back(std::clamp(distance / cut_off, -1.0F, 1.0F) /
                             shape.deviation());
    }
  }
  return set;
}

bool Fits(const VoxelSet& set, const VoxelShape& shape) {
  if (set.size() > shape.most_tokens) return false;
  std::vector<Voxel> cubes;
  for (int64_t i = 0; i < set.size(); ++i) {
    cubes.push_back(
        {set.voxels[3 * i], set.voxels[3 * i + 1], set.voxels[3 * i + 2]});
  }
  for (const int64_t most : shape.most_coarser) {
    for (Voxel& cube : cubes) {
      for (int32_t& coordinate : cube) coordinate /= 2;
    }
    std::sort(cubes.begin(), cubes.end());
    cubes.erase(std::unique(cubes.begin(), cubes.end()), cubes.end());
    if (static_cast<int64_t>(cubes.size()) > most) return false;
  }
  return true;
}

absl::StatusOr<VolumeField> VoxelField(std::span<const int32_t> voxels,
                                       std::span<const float> features,
                                       const VoxelShape& shape) {
  const int64_t channels = shape.token_channels();
  const auto count = static_cast<int64_t>(voxels.size()) / 3;
  if (static_cast<int64_t>(features.size()) < count * channels) {
    return InvalidArgument("{} values of {} voxels, expected {} of each",
                           features.size(), count, channels);
  }
  const Cells cells(shape.cells), cubes(shape.lattice());
  const float cut_off = shape.cut_off();
  std::vector<float> distances(shape.values(), 0.0F);
  std::vector<bool> known(shape.values(), false);
  for (int64_t token = 0; token < count; ++token) {
    const Voxel voxel = {voxels[3 * token], voxels[3 * token + 1],
                         voxels[3 * token + 2]};
    if (!cubes.Has(voxel)) {
      return InvalidArgument("a voxel at {}, {}, {}, expected 0 to {}",
                             voxel[0], voxel[1], voxel[2], shape.lattice() - 1);
    }
    for (int64_t i = 0; i < channels; ++i) {
      const float value = features[token * channels + i];
      const int64_t cell = cells.At(CellOf(voxel, i, shape.patch));
      if (!std::isfinite(value)) {
        return InvalidArgument("a voxel with values that are not finite");
      }
      if (known[cell]) {
        return InvalidArgument("two voxels at {}, {}, {}, expected one",
                               voxel[0], voxel[1], voxel[2]);
      }
      known[cell] = true;
      distances[cell] =
          cut_off * std::clamp(value * shape.deviation(), -1.0F, 1.0F);
    }
  }
  FillUnknown(known, cells, cut_off, distances);
  return VolumeField::FromDistances(shape.cells, std::move(distances));
}

}  // namespace trireme
