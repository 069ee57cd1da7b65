#include "models/shape/marching_cubes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "models/shape/cube_triangles.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// A point or cell of a grid by its three indices, 20 bits each.
using Key = uint64_t;
constexpr int kBits = 20;
constexpr std::array<Key, 3> kStep = {1, Key{1} << kBits, Key{1} << 2 * kBits};

Key KeyOf(int x, int y, int z) {
  return static_cast<Key>(x) * kStep[0] + static_cast<Key>(y) * kStep[1] +
         static_cast<Key>(z) * kStep[2];
}

int IndexOf(Key key, int axis) {
  return static_cast<int>(key >> (kBits * axis) & ((1 << kBits) - 1));
}

Key Corner(Key cell, int corner) {
  Key key = cell;
  for (int axis = 0; axis < 3; ++axis) {
    if (corner >> axis & 1) key += kStep[axis];
  }
  return key;
}

// What counts as outside at the cube's border, so that the surface is closed.
constexpr float kOutside = 1e-6f;
// Vertices keep so far from the ends of their edges, by the edge's length:
// triangles around a corner of value 0 would have no area.
constexpr double kFromEnd = 1e-3;

// Values at some points of a grid: in an array of all of them where that is
// small, which is much faster, else by key.
class PointValues {
 public:
  // `side`: points along a side of the grid.
  explicit PointValues(int64_t side) : side_(side) {
    if (side * side * side <= kMostInArray) {
      array_.assign(side * side * side, kUnknown);
    }
  }

  int64_t size() const { return size_; }

  // Makes the point one of them, with the value 0; false if it was before.
  bool Insert(Key key) {
    if (!array_.empty()) {
      float& value = array_[OffsetOf(key)];
      if (!std::isnan(value)) return false;
      value = 0;
    } else if (!by_key_.try_emplace(key, 0.0f).second) {
      return false;
    }
    ++size_;
    return true;
  }

  // Of a point that was inserted.
  void Set(Key key, float value) {
    (array_.empty() ? by_key_[key] : array_[OffsetOf(key)]) = value;
  }
  float operator[](Key key) const {
    return array_.empty() ? by_key_.find(key)->second : array_[OffsetOf(key)];
  }

 private:
  static constexpr int64_t kMostInArray = int64_t{1} << 23;
  static constexpr float kUnknown = std::numeric_limits<float>::quiet_NaN();

  size_t OffsetOf(Key key) const {
    return (IndexOf(key, 2) * side_ + IndexOf(key, 1)) * side_ +
           IndexOf(key, 0);
  }

  int64_t side_;
  int64_t size_ = 0;
  std::vector<float> array_;
  absl::flat_hash_map<Key, float> by_key_;
};

// One grid over the cube with the values at the corners of some cells.
class Grid {
 public:
  Grid(const PointFunction& function, const MarchingCubesOptions& options,
       int cells)
      : function_(function),
        options_(options),
        cells_(cells),
        values_(cells + 1) {}

  double cell_side() const { return 2 * options_.half_extent / cells_; }

  Vector3f PointAt(Key key) const {
    const auto at = [&](int axis) {
      return static_cast<float>(-options_.half_extent +
                                IndexOf(key, axis) * cell_side());
    };
    return {at(0), at(1), at(2)};
  }

  // Asks for all corners of the cells that are not known yet.
  absl::Status Evaluate(std::span<const Key> cells) {
    std::vector<Key> asked;
    for (const Key cell : cells) {
      for (int corner = 0; corner < 8; ++corner) {
        const Key key = Corner(cell, corner);
        if (values_.Insert(key)) asked.push_back(key);
      }
    }
    if (values_.size() > options_.max_points) {
      return ResourceExhausted(
          "marching cubes with {} cells a side: more than {} points", cells_,
          options_.max_points);
    }
    std::vector<Vector3f> points;
    std::vector<float> values;
    for (size_t first = 0; first < asked.size(); first += points.size()) {
      const size_t count =
          std::min(asked.size() - first, static_cast<size_t>(options_.batch));
      points.clear();
      for (size_t i = 0; i < count; ++i) {
        points.push_back(PointAt(asked[first + i]));
      }
      values.resize(count);
      RETURN_IF_ERROR(function_(points, values));
      for (size_t i = 0; i < count; ++i) {
        if (!std::isfinite(values[i])) {
          return DataLoss(
              "the function is {} at ({}, {}, {}), expected a finite number",
              values[i], points[i].x, points[i].y, points[i].z);
        }
        const Key key = asked[first + i];
        values_.Set(key,
                    AtBorder(key) ? std::max(values[i], kOutside) : values[i]);
      }
    }
    return absl::OkStatus();
  }

  float Value(Key key) const { return values_[key]; }

  // Bit c: corner c is negative.
  int Negative(Key cell) const {
    int negative = 0;
    for (int corner = 0; corner < 8; ++corner) {
      negative |= (Value(Corner(cell, corner)) < 0) << corner;
    }
    return negative;
  }

  bool NearSurface(Key cell, double within) const {
    const int negative = Negative(cell);
    if (negative != 0 && negative != 255) return true;
    for (int corner = 0; corner < 8; ++corner) {
      if (std::abs(Value(Corner(cell, corner))) <= within) return true;
    }
    return false;
  }

  // The neighbours of a cell that the surface goes on to.
  void AddCrossed(Key cell, std::vector<Key>& neighbors) const {
    const int negative = Negative(cell);
    for (int axis = 0; axis < 3; ++axis) {
      for (const int side : {0, 1}) {
        int corners = 0;
        int inside = 0;
        for (int corner = 0; corner < 8; ++corner) {
          if ((corner >> axis & 1) != side) continue;
          ++corners;
          inside += negative >> corner & 1;
        }
        const int index = IndexOf(cell, axis);
        if (inside == 0 || inside == corners) continue;
        if (side == 1 && index + 1 < cells_) {
          neighbors.push_back(cell + kStep[axis]);
        } else if (side == 0 && index > 0) {
          neighbors.push_back(cell - kStep[axis]);
        }
      }
    }
  }

 private:
  bool AtBorder(Key key) const {
    for (int axis = 0; axis < 3; ++axis) {
      const int index = IndexOf(key, axis);
      if (index == 0 || index == cells_) return true;
    }
    return false;
  }

  const PointFunction& function_;
  const MarchingCubesOptions& options_;
  const int cells_;
  PointValues values_;
};

void SortUnique(std::vector<Key>& keys) {
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
}

// The cells and all that the surface reaches from them; of those, sorted, the
// ones that it runs through.
absl::StatusOr<std::vector<Key>> FollowSurface(Grid& grid,
                                               std::vector<Key> cells) {
  std::vector<Key> known;
  std::vector<Key> crossed;
  while (!cells.empty()) {
    RETURN_IF_ERROR(grid.Evaluate(cells));
    std::vector<Key> reached;
    for (const Key cell : cells) {
      const int negative = grid.Negative(cell);
      if (negative == 0 || negative == 255) continue;
      crossed.push_back(cell);
      grid.AddCrossed(cell, reached);
    }
    known.insert(known.end(), cells.begin(), cells.end());
    std::sort(known.begin(), known.end());
    SortUnique(reached);
    cells.clear();
    std::set_difference(reached.begin(), reached.end(), known.begin(),
                        known.end(), std::back_inserter(cells));
  }
  std::sort(crossed.begin(), crossed.end());
  return crossed;
}

Mesh Triangulate(const Grid& grid, const std::vector<Key>& cells) {
  const CubeTriangles table = MakeCubeTriangles();
  Mesh mesh;
  // By the edge's beginning and its axis.
  absl::flat_hash_map<std::pair<Key, int>, int32_t> vertices;
  const auto vertex_on = [&](Key cell, int edge) {
    const auto [from, axis] = CubeEdges()[edge];
    const Key key = Corner(cell, from);
    const auto [entry, is_new] = vertices.try_emplace(
        std::pair(key, axis), static_cast<int32_t>(mesh.vertices.size()));
    if (is_new) {
      const double a = grid.Value(key);
      const double b = grid.Value(key + kStep[axis]);
      const double t = std::clamp(a / (a - b), kFromEnd, 1 - kFromEnd);
      const auto from_point = grid.PointAt(key).As<double>();
      const auto to_point = grid.PointAt(key + kStep[axis]).As<double>();
      mesh.vertices.push_back(
          (from_point + (to_point - from_point) * t).As<float>());
    }
    return entry->second;
  };
  for (const Key cell : cells) {
    for (const auto& edges : table[grid.Negative(cell)]) {
      mesh.triangles.push_back({vertex_on(cell, edges[0]),
                                vertex_on(cell, edges[1]),
                                vertex_on(cell, edges[2])});
    }
  }
  return mesh;
}

}  // namespace

absl::StatusOr<Mesh> MarchingCubes(const PointFunction& function,
                                   const MarchingCubesOptions& options) {
  CHECK(options.cells > 0 && options.refinements >= 0 && options.batch > 0);
  CHECK_LE(int64_t{options.cells} << options.refinements, 1 << 14);
  std::vector<Key> cells;
  for (int z = 0; z < options.cells; ++z) {
    for (int y = 0; y < options.cells; ++y) {
      for (int x = 0; x < options.cells; ++x) cells.push_back(KeyOf(x, y, z));
    }
  }
  int side = options.cells;
  for (int level = 0; level < options.refinements; ++level) {
    Grid grid(function, options, side);
    RETURN_IF_ERROR(grid.Evaluate(cells));
    const double within = options.band * grid.cell_side() * std::sqrt(3.0);
    std::vector<Key> children;
    for (const Key cell : cells) {
      if (!grid.NearSurface(cell, within)) continue;
      const Key first = KeyOf(2 * IndexOf(cell, 0), 2 * IndexOf(cell, 1),
                              2 * IndexOf(cell, 2));
      for (int child = 0; child < 8; ++child) {
        children.push_back(Corner(first, child));
      }
    }
    cells = std::move(children);
    side *= 2;
  }
  Grid grid(function, options, side);
  ASSIGN_OR_RETURN(const std::vector<Key> crossed,
                   FollowSurface(grid, std::move(cells)));
  return Triangulate(grid, crossed);
}

}  // namespace trireme
