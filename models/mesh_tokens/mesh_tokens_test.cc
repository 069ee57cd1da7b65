// A mesh comes back from its tokens as it was, in fewer of them than its faces
// have coordinates, and any tokens at all come back as some mesh.

#include "models/mesh_tokens/mesh_tokens.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "models/mesh_tokens/mesh_grammar.h"
#include "models/shape/shapes_testing.h"
#include "runtime/core/philox.h"

namespace trireme {
namespace {

constexpr MeshTokenFormat kFormats[] = {
    {.bits = 7, .block_bits = 3},
    {.bits = 6, .block_bits = 3},
    {.bits = 5, .block_bits = 1},
};

void ExpectRoundTrip(const MeshTokenFormat& format, const QuantizedMesh& mesh) {
  const std::vector<int32_t> tokens = EncodeMesh(format, mesh);
  for (const int32_t token : tokens) {
    ASSERT_GE(token, 0);
    ASSERT_LT(token, format.vocabulary());
  }
  const DecodedMesh decoded = DecodeMesh(format, tokens);
  EXPECT_EQ(decoded.mesh, mesh);
  EXPECT_TRUE(decoded.ended);
  EXPECT_EQ(decoded.dropped_tokens, 0);
  EXPECT_EQ(decoded.dropped_faces, 0);
  EXPECT_EQ(Quantize(ToMesh(mesh), format.bits), mesh);
}

// Any faces among few vertices: crowded edges, both sides of a face, parts that
// meet in a vertex.
QuantizedMesh RandomMesh(int bits, uint64_t number) {
  const RandomStream random({.sample = number});
  const uint64_t vertices = 3 + random.Bits(0) % 40;
  const uint64_t faces = 1 + random.Bits(1) % 120;
  QuantizedMesh mesh{.bits = bits, .faces = {}};
  for (uint64_t f = 0; f < faces; ++f) {
    CodedFace& face = mesh.faces.emplace_back();
    for (uint64_t i = 0; i < 3; ++i) {
      const uint64_t vertex = random.Bits(2 + 3 * f + i) % vertices;
      face[i] =
          static_cast<int32_t>(random.Bits(10000 + vertex) >> (64 - 3 * bits));
    }
  }
  Canonicalize(mesh);
  return mesh;
}

TEST(MeshTokensTest, AnalyticShapesComeBackInAThirdOfTheTokens) {
  const std::pair<std::string, Mesh> shapes[] = {
      {"box", BoxMesh({-0.95F, -0.5F, -0.3F}, {0.95F, 0.5F, 0.3F})},
      {"sphere", SphereMesh(0.95, 16, 10)},
      {"torus", TorusMesh(0.7, 0.25, 24, 12)},
  };
  for (const MeshTokenFormat& format : kFormats) {
    for (const auto& [name, mesh] : shapes) {
      const QuantizedMesh quantized = Quantize(mesh, format.bits);
      ExpectRoundTrip(format, quantized);
      const auto tokens =
          static_cast<double>(EncodeMesh(format, quantized).size());
      const double share =
          tokens / (9.0 * static_cast<double>(quantized.faces.size()));
      RecordProperty(name + "_share_of_9_tokens_a_face_" +
                         std::to_string(format.bits) + "_bits",
                     std::to_string(share));
      EXPECT_LT(share, 0.45) << name << ": " << tokens << " tokens of "
                             << quantized.faces.size() << " faces";
    }
  }
}

TEST(MeshTokensTest, AnyFacesComeBack) {
  for (const MeshTokenFormat& format : kFormats) {
    for (uint64_t i = 0; i < 200; ++i) {
      ExpectRoundTrip(format, RandomMesh(format.bits, i));
      if (HasFailure()) return;
    }
  }
}

TEST(MeshTokensTest, TheOrderOfAFileChangesNothing) {
  const Mesh mesh = TorusMesh(0.7, 0.25, 12, 8);
  Mesh shuffled;
  const auto vertices = static_cast<int32_t>(mesh.vertices.size());
  // 5 has no divisor in common with their number.
  const auto moved = [vertices](int32_t i) { return i * 5 % vertices; };
  shuffled.vertices.resize(vertices);
  for (int32_t i = 0; i < vertices; ++i) {
    shuffled.vertices[moved(i)] = mesh.vertices[i];
  }
  for (auto face = mesh.triangles.rbegin(); face != mesh.triangles.rend();
       ++face) {
    shuffled.triangles.push_back(
        {moved((*face)[1]), moved((*face)[2]), moved((*face)[0])});
  }
  const MeshTokenFormat format;
  EXPECT_EQ(EncodeMesh(format, Quantize(mesh, format.bits)),
            EncodeMesh(format, Quantize(shuffled, format.bits)));
}

TEST(MeshTokensTest, AnyTokensGiveAMeshAndACount) {
  for (const MeshTokenFormat& format : kFormats) {
    for (uint64_t number = 0; number < 300; ++number) {
      const RandomStream random({.sample = number});
      std::vector<int32_t> tokens(random.Bits(0) % 200);
      for (size_t i = 0; i < tokens.size(); ++i) {
        // Half of them the numbers of a category, the rest whatever.
        const auto bits = static_cast<int32_t>(random.Bits(i + 1));
        tokens[i] = number % 2 == 0
                        ? bits
                        : static_cast<int32_t>(static_cast<uint32_t>(bits) %
                                               (format.vocabulary() + 2)) -
                              1;
      }
      const DecodedMesh decoded = DecodeMesh(format, tokens);
      EXPECT_LE(decoded.dropped_tokens, static_cast<int64_t>(tokens.size()));
      QuantizedMesh again = decoded.mesh;
      EXPECT_EQ(Canonicalize(again), 0);
      ExpectRoundTrip(format, decoded.mesh);
      if (HasFailure()) return;
    }
  }
}

TEST(MeshTokensTest, WhatIsDroppedIsCounted) {
  const MeshTokenFormat format;
  const int32_t begin = format.first_begin(), block = format.first_block();
  const auto decode = [&](const std::vector<int32_t>& tokens) {
    return DecodeMesh(format, tokens);
  };
  // No fan yet; a centre whose block is said twice; a block of no vertex.
  EXPECT_EQ(decode({7}).dropped_tokens, 1);
  EXPECT_EQ(decode({begin, block, 1, 2, 3}).dropped_tokens, 1);
  EXPECT_EQ(decode({begin, 1, 2, 3, block}).dropped_tokens, 1);
  EXPECT_EQ(decode({begin, 1, 2, 3, block}).mesh.faces.size(), 1);
  // A fan without a face, and tokens that are none.
  EXPECT_EQ(decode({begin, 1, 2, begin, 1, 2, 3}).dropped_tokens, 3);
  EXPECT_EQ(decode({begin, 1, 2, 3, -1, 1 << 30}).dropped_tokens, 2);
  // The same face again, and one without area.
  EXPECT_EQ(decode({begin, 1, 2, 3, begin, 2, 3, 1}).dropped_faces, 1);
  EXPECT_EQ(decode({begin, 1, 2, 2, 3}).dropped_faces, 1);
  const DecodedMesh cut = decode({begin, 1, 2, 3});
  EXPECT_FALSE(cut.ended);
  EXPECT_EQ(cut.mesh.faces.size(), 1);
}

TEST(MeshGrammarTest, WhatIsDrawnUnderItEndsInTimeAndLosesNoToken) {
  for (const MeshTokenFormat& format : kFormats) {
    const MeshGrammar grammar(format);
    for (int64_t length = kShortestMeshSequence; length < 40; ++length) {
      const RandomStream random({.sample = static_cast<uint64_t>(length)});
      std::vector<int32_t> tokens;
      while (tokens.empty() || tokens.back() != format.end()) {
        const auto left = length - static_cast<int64_t>(tokens.size());
        ASSERT_GT(left, 0) << length;
        const std::vector<TokenInterval> allowed = grammar.Next(tokens, left);
        ASSERT_FALSE(allowed.empty());
        // Whole categories by turns, so that fans are long and short; the end
        // only where nothing else may come.
        const size_t most =
            allowed.size() > 1 && allowed.back().begin == format.end()
                ? allowed.size() - 1
                : allowed.size();
        const TokenInterval& chosen =
            allowed[random.Bits(2 * tokens.size()) % most];
        tokens.push_back(chosen.begin + static_cast<int32_t>(
                                            random.Bits(2 * tokens.size() + 1) %
                                            (chosen.end - chosen.begin)));
      }
      const DecodedMesh decoded = DecodeMesh(format, tokens);
      EXPECT_EQ(decoded.dropped_tokens, 0);
      EXPECT_TRUE(decoded.ended);
    }
  }
}

TEST(MeshGrammarTest, EveryMeshIsAllowed) {
  const MeshTokenFormat format;
  const MeshGrammar grammar(format);
  const std::vector<int32_t> tokens =
      EncodeMesh(format, Quantize(SphereMesh(0.9, 8, 6), format.bits));
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::vector<TokenInterval> allowed = grammar.Next(
        std::span(tokens).first(i), static_cast<int64_t>(tokens.size() - i));
    EXPECT_TRUE(std::any_of(allowed.begin(), allowed.end(),
                            [&](const TokenInterval& interval) {
                              return interval.begin <= tokens[i] &&
                                     tokens[i] < interval.end;
                            }))
        << "token " << i;
  }
}

}  // namespace
}  // namespace trireme
