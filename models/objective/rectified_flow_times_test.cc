// By which densities times are drawn, and how they are shifted by the number of
// tokens.

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "models/objective/rectified_flow.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

constexpr int64_t kMany = 20000;

const FieldSpec kPictures = {.name = kPixelsField, .shape = {1, 2, 2}};

// The largest distance between the distribution of what is drawn and that of a
// density on [0, 1].
template <typename Density>
double DistanceFromDensity(const RectifiedFlowConfig& config,
                           Density&& density) {
  std::vector<double> sigmas;
  for (int64_t i = 0; i < kMany; ++i) {
    sigmas.push_back(DrawSigma(
        config, RandomStream({.seed = 3, .sample = static_cast<uint64_t>(i)})));
  }
  std::sort(sigmas.begin(), sigmas.end());
  constexpr int kSteps = 20000;
  double below = 0, distance = 0;
  size_t at = 0;
  for (int i = 0; i < kSteps; ++i) {
    while (at < sigmas.size() && sigmas[at] < double{1} * i / kSteps) ++at;
    distance = std::max(
        distance, std::abs(below - static_cast<double>(at) / double{kMany}));
    below += density((i + 0.5) / kSteps) / kSteps;
  }
  EXPECT_NEAR(below, 1, 1e-3) << "the density's sum";
  return distance;
}

// Training that sees too few times of some kind draws badly there.
TEST(DrawSigmaTest, DensitiesAreThoseOfThePaper) {
  // Of one true sample in a hundred the distance is more.
  const double most = 1.63 / std::sqrt(double{kMany});
  EXPECT_LT(DistanceFromDensity({.times = RectifiedFlow::UNIFORM},
                                [](double) { return 1.0; }),
            most);
  EXPECT_LT(DistanceFromDensity({.times = RectifiedFlow::COSMAP},
                                [](double t) {
                                  return 2 / (std::numbers::pi *
                                              (1 - 2 * t + 2 * t * t));
                                }),
            most);
  // 1/|f'(u)| where f(u) = t.
  for (const double scale : {-0.5, 0.5, 1.29}) {
    const auto f = [scale](double u) {
      const double cosine = std::cos(std::numbers::pi / 2 * u);
      return 1 - u - scale * (cosine * cosine - 1 + u);
    };
    const auto density = [&](double t) {
      double low = 0, high = 1;
      for (int i = 0; i < 60; ++i) {
        (f((low + high) / 2) > t ? low : high) = (low + high) / 2;
      }
      return 1 / (1 + scale * (1 - std::numbers::pi / 2 *
                                       std::sin(std::numbers::pi * low)));
    };
    EXPECT_LT(DistanceFromDensity(
                  {.times = RectifiedFlow::MODE, .mode_scale = scale}, density),
              most)
        << scale;
  }
}

// FLUX.1's pipeline shifts by e^0.5 at 256 tokens and by e^1.15 at 4096.
TEST(ResolveRectifiedFlowTest, DynamicShiftFollowsTheTokens) {
  RectifiedFlow flow;
  flow.mutable_dynamic_shift();
  for (const auto& [tokens, mu] :
       {std::pair(256, 0.5), std::pair(4096, 1.15), std::pair(2176, 0.825)}) {
    const auto config = ResolveRectifiedFlow(flow, kPictures, tokens);
    CHECK_OK(config.status());
    EXPECT_NEAR(config->shift, std::exp(mu), 1e-12) << tokens;
  }
  // A run's job is resolved again when it goes on.
  const auto config = ResolveRectifiedFlow(flow, kPictures, 256);
  FillRectifiedFlow(*config, flow);
  EXPECT_TRUE(ResolveRectifiedFlow(flow, kPictures, 256).ok());
  EXPECT_NE(ResolveRectifiedFlow(flow, kPictures, 257)
                .status()
                .message()
                .find("objective.rectified_flow.shift: found 1.648"),
            std::string::npos);
  flow = RectifiedFlow();
  flow.mutable_dynamic_shift()->set_max_tokens(256);
  EXPECT_EQ(ResolveRectifiedFlow(flow, kPictures, 256).status().message(),
            "objective.rectified_flow.dynamic_shift.max_tokens: found 256, "
            "expected more than base_tokens, 256");
}

TEST(ResolveRectifiedFlowTest, ModesFallFromNoiseToPictures) {
  RectifiedFlow flow;
  flow.set_mode_scale(2);
  EXPECT_EQ(ResolveRectifiedFlow(flow, kPictures).status().message(),
            "objective.rectified_flow.mode_scale: found 2, expected -1 to "
            "1.7519");
}

}  // namespace
}  // namespace trireme
