#include "models/mesh_tokens/mesh_tokens.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <optional>
#include <unordered_map>

#include "runtime/core/log.h"

namespace trireme {
namespace {

// A face at one of its vertices.
struct Corner {
  int32_t center;
  int32_t from;
  int32_t to;
  int32_t face;

  auto operator<=>(const Corner&) const = default;
};

// The faces of a mesh that no fan has yet.
class FacesLeft {
 public:
  explicit FacesLeft(const std::vector<CodedFace>& faces)
      : faces_(faces), taken_(faces.size()) {
    for (size_t f = 0; f < faces.size(); ++f) {
      for (int i = 0; i < 3; ++i) {
        const Corner corner = {faces[f][i], faces[f][(i + 1) % 3],
                               faces[f][(i + 2) % 3], static_cast<int32_t>(f)};
        by_from_.push_back(corner);
        // Seen from the other side: the same search finds what comes before.
        by_to_.push_back({corner.center, corner.to, corner.from, corner.face});
        ++left_at_[corner.center];
      }
    }
    std::sort(by_from_.begin(), by_from_.end());
    std::sort(by_to_.begin(), by_to_.end());
  }

  bool Has(size_t face) const { return !taken_[face]; }

  // The face at its vertex of most faces that are left.
  Corner BestCorner(size_t face) const {
    const CodedFace& vertices = faces_[face];
    int best = 0;
    for (int i = 1; i < 3; ++i) {
      // From the lowest vertex on: of equal ones that stays.
      if (left_at_.at(vertices[i]) > left_at_.at(vertices[best])) best = i;
    }
    return {vertices[best], vertices[(best + 1) % 3], vertices[(best + 2) % 3],
            static_cast<int32_t>(face)};
  }

  void Take(int32_t face) {
    taken_[face] = true;
    for (const int32_t vertex : faces_[face]) --left_at_.at(vertex);
  }

  // The vertex after (or before) `vertex` about the centre, and takes the face
  // between them.
  std::optional<int32_t> TakeNext(int32_t center, int32_t vertex) {
    return TakeFrom(by_from_, center, vertex);
  }
  std::optional<int32_t> TakePrevious(int32_t center, int32_t vertex) {
    return TakeFrom(by_to_, center, vertex);
  }

 private:
  std::optional<int32_t> TakeFrom(const std::vector<Corner>& corners,
                                  int32_t center, int32_t vertex) {
    constexpr int32_t kLowest = std::numeric_limits<int32_t>::min();
    for (auto corner =
             std::lower_bound(corners.begin(), corners.end(),
                              Corner{center, vertex, kLowest, kLowest});
         corner != corners.end() && corner->center == center &&
         corner->from == vertex;
         ++corner) {
      if (taken_[corner->face]) continue;
      Take(corner->face);
      return corner->to;
    }
    return std::nullopt;
  }

  const std::vector<CodedFace>& faces_;
  std::vector<bool> taken_;
  std::vector<Corner> by_from_;
  std::vector<Corner> by_to_;
  std::unordered_map<int32_t, int32_t> left_at_;
};

// A vertex's block and its offset there, both y before z before x.
struct Place {
  int32_t block = 0;
  int32_t offset = 0;
};

Place PlaceOf(const MeshTokenFormat& format, int32_t code) {
  const int low = format.bits - format.block_bits;
  Place place;
  for (int axis = 2; axis >= 0; --axis) {
    const int32_t cell =
        code >> (axis * format.bits) & ((1 << format.bits) - 1);
    place.block = place.block << format.block_bits | cell >> low;
    place.offset = place.offset << low | (cell & ((1 << low) - 1));
  }
  return place;
}

int32_t CodeOf(const MeshTokenFormat& format, const Place& place) {
  const int low = format.bits - format.block_bits;
  int32_t code = 0;
  for (int axis = 2; axis >= 0; --axis) {
    const int32_t high = place.block >> (axis * format.block_bits) &
                         ((1 << format.block_bits) - 1);
    const int32_t rest = place.offset >> (axis * low) & ((1 << low) - 1);
    code = code << format.bits | high << low | rest;
  }
  return code;
}

// Codes are not negative.
constexpr int32_t kNone = -1;

// What is read of a fan until it ends.
class FanReader {
 public:
  FanReader(const MeshTokenFormat& format, DecodedMesh& decoded)
      : format_(format), decoded_(decoded) {}

  void Begin(int32_t block) {
    Close();
    open_ = true;
    block_ = block;
    tokens_ = 1;
  }

  void Block(int32_t block) {
    // A centre's block is said where it begins, and nobody's twice.
    if (!open_ || center_ == kNone || block_is_new_) {
      ++decoded_.dropped_tokens;
      return;
    }
    block_ = block;
    block_is_new_ = true;
    ++tokens_;
  }

  void Offset(int32_t offset) {
    if (!open_) {
      ++decoded_.dropped_tokens;
      return;
    }
    ++tokens_;
    block_is_new_ = false;
    const int32_t code = CodeOf(format_, {.block = block_, .offset = offset});
    if (center_ == kNone) {
      center_ = code;
      return;
    }
    if (before_ != kNone) {
      decoded_.mesh.faces.push_back({center_, before_, code});
      has_face_ = true;
    }
    before_ = code;
  }

  void Close() {
    if (open_ && !has_face_) {
      decoded_.dropped_tokens += tokens_;
    } else if (block_is_new_) {
      ++decoded_.dropped_tokens;
    }
    open_ = has_face_ = block_is_new_ = false;
    center_ = before_ = kNone;
  }

 private:
  const MeshTokenFormat& format_;
  DecodedMesh& decoded_;
  bool open_ = false;
  bool has_face_ = false;
  // No vertex of the block has come since it was said.
  bool block_is_new_ = false;
  int32_t block_ = 0;
  int64_t tokens_ = 0;
  int32_t center_ = kNone;
  int32_t before_ = kNone;
};

}  // namespace

std::vector<int32_t> EncodeMesh(const MeshTokenFormat& format,
                                const QuantizedMesh& mesh) {
  CHECK_EQ(format.bits, mesh.bits);
  std::vector<int32_t> tokens;
  FacesLeft left(mesh.faces);
  for (size_t f = 0; f < mesh.faces.size(); ++f) {
    // A fan takes the face that it begins with, so that each comes once.
    if (!left.Has(f)) continue;
    const Corner corner = left.BestCorner(f);
    left.Take(corner.face);
    std::deque<int32_t> around = {corner.from, corner.to};
    while (const auto next = left.TakeNext(corner.center, around.back())) {
      around.push_back(*next);
    }
    while (const auto before =
               left.TakePrevious(corner.center, around.front())) {
      around.push_front(*before);
    }
    const Place center = PlaceOf(format, corner.center);
    tokens.push_back(format.first_begin() + center.block);
    tokens.push_back(center.offset);
    int32_t block = center.block;
    for (const int32_t vertex : around) {
      const Place place = PlaceOf(format, vertex);
      if (place.block != block) {
        tokens.push_back(format.first_block() + place.block);
      }
      tokens.push_back(place.offset);
      block = place.block;
    }
  }
  tokens.push_back(format.end());
  return tokens;
}

DecodedMesh DecodeMesh(const MeshTokenFormat& format,
                       std::span<const int32_t> tokens) {
  DecodedMesh decoded;
  decoded.mesh.bits = format.bits;
  FanReader fan(format, decoded);
  for (const int32_t token : tokens) {
    if (token == format.end()) {
      decoded.ended = true;
      break;
    }
    if (token < 0 || token > format.end()) {
      ++decoded.dropped_tokens;
    } else if (token >= format.first_begin()) {
      fan.Begin(token - format.first_begin());
    } else if (token >= format.first_block()) {
      fan.Block(token - format.first_block());
    } else {
      fan.Offset(token);
    }
  }
  fan.Close();
  decoded.dropped_faces = Canonicalize(decoded.mesh);
  return decoded;
}

}  // namespace trireme
