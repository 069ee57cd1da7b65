// Random streams: the generator's published answers, values that must never
// change (runs are resumed and compared by them), and independence of streams.

#include "runtime/core/philox.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include "Random123/philox.h"
#include "gtest/gtest.h"

namespace trireme {
namespace {

std::vector<uint32_t> Philox(std::array<uint32_t, 4> counter,
                             std::array<uint32_t, 2> key) {
  const auto result = r123::Philox4x32()(
      {{counter[0], counter[1], counter[2], counter[3]}}, {{key[0], key[1]}});
  return {result[0], result[1], result[2], result[3]};
}

// Random123's kat_vectors for philox4x32-10.
TEST(PhiloxTest, PublishedKnownAnswers) {
  EXPECT_EQ(
      Philox({0, 0, 0, 0}, {0, 0}),
      (std::vector<uint32_t>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(
      Philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
      (std::vector<uint32_t>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(
      Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
             {0xa4093822, 0x299f31d0}),
      (std::vector<uint32_t>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// The stream's own layout: the step is mixed into the key ("step" as the third
// counter word), then element block, sample, purpose and layer are counted.
TEST(RandomStreamTest, LayoutOfKeyAndCounter) {
  const RandomKey key = {.seed = 0x0123456789abcdef,
                         .step = 0x1122334455667788,
                         .sample = 0xfedcba9876543210,
                         .layer = 7,
                         .purpose = RandomPurpose::kNoise};
  const std::vector<uint32_t> mixed =
      Philox({0x55667788, 0x11223344, 0x73746570, 0}, {0x89abcdef, 0x01234567});
  const std::vector<uint32_t> expected =
      Philox({5, 0x76543210, 0xfedcba98, 0x00010007}, {mixed[0], mixed[1]});
  const std::array<uint32_t, 4> block = RandomStream(key).Block(5);
  EXPECT_EQ(std::vector<uint32_t>(block.begin(), block.end()), expected);
}

// A parameter or a sample of more than 2^34 elements would repeat itself.
TEST(RandomStreamTest, DoesNotRepeatBehindTheCounter) {
  const RandomStream stream({.seed = 42, .sample = 7});
  for (const uint64_t period : {uint64_t{1} << 34, uint64_t{1} << 35}) {
    int equal = 0;
    for (uint64_t i = 0; i < 64; ++i) {
      equal += stream.Uniform(i) == stream.Uniform(i + period) ? 1 : 0;
      equal += stream.Bits(i) == stream.Bits(i + period) ? 1 : 0;
    }
    EXPECT_EQ(equal, 0);
  }
}

// Values of one stream, fixed for good. Normals pass through the library's
// logarithm and cosine, whose last bits may differ between systems.
TEST(RandomStreamTest, StreamsNeverChange) {
  const RandomStream stream({.seed = 42,
                             .step = 7,
                             .sample = 123456789012,
                             .layer = 3,
                             .purpose = RandomPurpose::kNoise});
  struct Element {
    uint64_t index;
    uint64_t bits;
    double uniform;
    double normal;
  };
  for (const Element& expected : std::vector<Element>{
           {0, 0xd056c769258ec476, 0.14670970803126693, 0.76480005333368029},
           {1, 0xdcce0ea2e9e64cdd, 0.81382414163090289, -1.8037959183698522},
           {2, 0xb7b8ff90fceb5e53, 0.91367035289295018, 0.27601300515239874},
           {3, 0x70642f8386845384, 0.86251918273046613, -0.3230908449721907},
           {4, 0xe9eca666b9438192, 0.98796643759123981, -0.031395321588153918},
           {1000003, 0x2aa5108bc4cf5481, 0.9718226648401469,
            -0.20664450756804578}}) {
    EXPECT_EQ(stream.Bits(expected.index), expected.bits);
    EXPECT_EQ(stream.Uniform(expected.index), expected.uniform);
    EXPECT_NEAR(stream.Normal(expected.index), expected.normal, 1e-14);
  }
}

TEST(RandomStreamTest, PurposesKeepTheirNumbers) {
  EXPECT_EQ(static_cast<int>(RandomPurpose::kInitialization), 0);
  EXPECT_EQ(static_cast<int>(RandomPurpose::kNoise), 1);
  EXPECT_EQ(static_cast<int>(RandomPurpose::kTime), 2);
  EXPECT_EQ(static_cast<int>(RandomPurpose::kConditionDrop), 3);
  EXPECT_EQ(static_cast<int>(RandomPurpose::kShuffle), 4);
  EXPECT_EQ(static_cast<int>(RandomPurpose::kSampling), 5);
  EXPECT_EQ(static_cast<int>(RandomPurpose::kMetric), 6);
  EXPECT_EQ(static_cast<int>(RandomPurpose::kTest), 7);
}

// A shard of a tensor draws the numbers that the whole would have there.
TEST(RandomStreamTest, FillsAgreeWithSingleElementsFromAnyStart) {
  const RandomStream stream({.seed = 3, .step = 4, .sample = 5});
  for (uint64_t first : {0, 1, 2, 3, 4, 1001}) {
    for (size_t n : {0, 1, 2, 3, 5, 64}) {
      std::vector<float> normals(n), uniforms(n);
      stream.FillNormal(first, normals);
      stream.FillUniform(first, uniforms);
      std::vector<double> wide_normals(n), wide_uniforms(n);
      stream.FillNormal(first, wide_normals);
      stream.FillUniform(first, wide_uniforms);
      for (size_t i = 0; i < n; ++i) {
        EXPECT_EQ(normals[i], static_cast<float>(stream.Normal(first + i)))
            << first << " + " << i;
        EXPECT_EQ(wide_normals[i], stream.Normal(first + i));
        EXPECT_EQ(wide_uniforms[i], stream.Uniform(first + i));
        // 24 of the 32 bits.
        EXPECT_NEAR(uniforms[i], stream.Uniform(first + i), 0x1p-24);
        EXPECT_LE(uniforms[i], stream.Uniform(first + i));
      }
    }
  }
}

TEST(RandomStreamTest, EveryFieldOfTheKeyGivesAnotherStream) {
  const RandomKey base = {.seed = 1, .step = 1, .sample = 1, .layer = 1};
  std::vector<RandomKey> keys(1, base);
  const auto vary = [&](auto change) {
    keys.push_back(base);
    change(keys.back());
  };
  vary([](RandomKey& key) { key.seed = 2; });
  vary([](RandomKey& key) { key.seed = 1 + (uint64_t{1} << 32); });
  vary([](RandomKey& key) { key.step = 2; });
  vary([](RandomKey& key) { key.step = 1 + (uint64_t{1} << 32); });
  vary([](RandomKey& key) { key.sample = 2; });
  vary([](RandomKey& key) { key.sample = 1 + (uint64_t{1} << 32); });
  vary([](RandomKey& key) { key.layer = 2; });
  vary([](RandomKey& key) { key.purpose = RandomPurpose::kNoise; });
  std::set<uint64_t> seen;
  for (const RandomKey& key : keys) {
    const RandomStream stream(key);
    for (uint64_t i = 0; i < 64; ++i) seen.insert(stream.Bits(i));
  }
  EXPECT_EQ(seen.size(), keys.size() * 64);
}

TEST(RandomStreamTest, NormalsHaveTheMomentsOfANormal) {
  constexpr int kCount = 1 << 18;
  std::vector<float> x(kCount);
  RandomStream({.seed = 11}).FillNormal(0, x);
  double moments[5] = {};
  double neighbours = 0;
  int beyond_two = 0;
  for (int i = 0; i < kCount; ++i) {
    double power = 1;
    for (double& moment : moments) {
      moment += power / kCount;
      power *= x[i];
    }
    neighbours += x[i] * x[(i + 1) % kCount] / kCount;
    beyond_two += std::abs(x[i]) > 2;
  }
  // Five standard errors: √(variance of the power / count).
  const double error = 5 / std::sqrt(static_cast<double>(kCount));
  EXPECT_NEAR(moments[1], 0, error);
  EXPECT_NEAR(moments[2], 1, error * std::sqrt(2.0));
  EXPECT_NEAR(moments[3], 0, error * std::sqrt(15.0));
  EXPECT_NEAR(moments[4], 3, error * std::sqrt(96.0));
  EXPECT_NEAR(neighbours, 0, error);
  EXPECT_NEAR(static_cast<double>(beyond_two) / kCount, 0.0455,
              error * std::sqrt(0.0455));
}

TEST(RandomStreamTest, UniformsFillTheUnitIntervalWithoutOne) {
  constexpr int kCount = 1 << 18;
  std::vector<float> x(kCount);
  RandomStream({.seed = 12}).FillUniform(0, x);
  double mean = 0, squares = 0;
  for (float value : x) {
    ASSERT_GE(value, 0);
    ASSERT_LT(value, 1);
    mean += value / kCount;
    squares += (value - 0.5) * (value - 0.5) / kCount;
  }
  const double error = 5 / std::sqrt(static_cast<double>(kCount));
  EXPECT_NEAR(mean, 0.5, error / std::sqrt(12.0));
  EXPECT_NEAR(squares, 1.0 / 12, error / std::sqrt(180.0));
}

// FNV-1a's published answers: names of parameters keep their initial values.
TEST(StableHashTest, PublishedKnownAnswers) {
  EXPECT_EQ(StableHash(""), 0xcbf29ce484222325u);
  EXPECT_EQ(StableHash("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(StableHash("foobar"), 0x85944171f73967e8u);
}

}  // namespace
}  // namespace trireme
