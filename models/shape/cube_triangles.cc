#include "models/shape/cube_triangles.h"

#include <utility>

#include "runtime/core/log.h"

namespace trireme {
namespace {

// Corners of the faces, counter-clockwise seen from outside.
constexpr std::array<std::array<int, 4>, 6> kFaces = {{{0, 4, 6, 2},
                                                       {1, 3, 7, 5},
                                                       {0, 1, 5, 4},
                                                       {2, 6, 7, 3},
                                                       {0, 2, 3, 1},
                                                       {4, 5, 7, 6}}};

int EdgeBetween(int a, int b) {
  for (int e = 0; e < 12; ++e) {
    const CubeEdge& edge = CubeEdges()[e];
    const int to = edge.from | 1 << edge.axis;
    if ((edge.from == a && to == b) || (edge.from == b && to == a)) return e;
  }
  LOG(FATAL) << "corners " << a << " and " << b << " are no neighbours";
  return -1;
}

// Whether two edges lie on one face.
bool ShareAFace(int a, int b) {
  for (const auto& face : kFaces) {
    int found = 0;
    for (int i = 0; i < 4; ++i) {
      const int edge = EdgeBetween(face[i], face[(i + 1) % 4]);
      found += edge == a || edge == b;
    }
    if (found == 2) return true;
  }
  return false;
}

using Loop = std::vector<int8_t>;
using Triangles = std::vector<std::array<int8_t, 3>>;

// On every face the surface runs from where its border, walked
// counter-clockwise, leaves a run of negative corners to where it entered that
// run. An edge is left on one of its two faces and entered on the other, so
// that these pieces join to loops.
std::vector<Loop> LoopsOf(int negative) {
  std::array<int8_t, 12> next;
  next.fill(-1);
  for (const auto& face : kFaces) {
    const auto inside = [&](int i) { return negative >> face[i % 4] & 1; };
    for (int i = 0; i < 4; ++i) {
      if (!inside(i) || inside(i + 1)) continue;
      int entry = i;
      while (inside(entry + 3)) entry += 3;
      next[EdgeBetween(face[i], face[(i + 1) % 4])] = static_cast<int8_t>(
          EdgeBetween(face[(entry + 3) % 4], face[entry % 4]));
    }
  }
  std::vector<Loop> loops;
  for (int8_t edge = 0; edge < 12; ++edge) {
    Loop loop;
    for (int8_t at = edge; next[at] >= 0;) {
      loop.push_back(at);
      at = std::exchange(next[at], -1);
    }
    if (!loop.empty()) loops.push_back(loop);
  }
  return loops;
}

// Triangulates vertices first..last of a loop, whose chord from first to last
// is given. A chord within a face could be the neighbour's as well, and then an
// edge of four triangles: there are as few of them as can be.
std::pair<int, Triangles> Triangulate(const Loop& loop, size_t first,
                                      size_t last) {
  std::pair<int, Triangles> best{last - first < 2 ? 0 : 1 << 20, {}};
  const auto cost = [&](size_t a, size_t b) {
    const bool chord = b - a > 1 && b - a + 1 < loop.size();
    return chord && ShareAFace(loop[a], loop[b]) ? 1 : 0;
  };
  for (size_t middle = first + 1; middle < last; ++middle) {
    auto [left_cost, triangles] = Triangulate(loop, first, middle);
    const auto [right_cost, right] = Triangulate(loop, middle, last);
    const int total =
        left_cost + right_cost + cost(first, middle) + cost(middle, last);
    if (total >= best.first) continue;
    triangles.insert(triangles.end(), right.begin(), right.end());
    // The loops run clockwise seen from the positive side.
    triangles.push_back({loop[last], loop[middle], loop[first]});
    best = {total, std::move(triangles)};
  }
  return best;
}

}  // namespace

const std::array<CubeEdge, 12>& CubeEdges() {
  static constexpr std::array<CubeEdge, 12> kEdges = {{{0, 0},
                                                       {2, 0},
                                                       {4, 0},
                                                       {6, 0},
                                                       {0, 1},
                                                       {1, 1},
                                                       {4, 1},
                                                       {5, 1},
                                                       {0, 2},
                                                       {1, 2},
                                                       {2, 2},
                                                       {3, 2}}};
  return kEdges;
}

CubeTriangles MakeCubeTriangles() {
  CubeTriangles all;
  for (int negative = 0; negative < 256; ++negative) {
    for (const Loop& loop : LoopsOf(negative)) {
      const auto [cost, triangles] = Triangulate(loop, 0, loop.size() - 1);
      CHECK_EQ(cost, 0) << "corners " << negative;
      all[negative].insert(all[negative].end(), triangles.begin(),
                           triangles.end());
    }
  }
  return all;
}

}  // namespace trireme
