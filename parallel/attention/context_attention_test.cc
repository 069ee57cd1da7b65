// Attention over tokens that are spread over ranks, against self-attention over
// all of them on one rank: what a model computes, and learns, must not depend
// on the number of context-parallel ranks.

#include "parallel/attention/context_attention.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/attention/context_attention_testing.h"
#include "runtime/comm/dry.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

double Tolerance(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
      return 0.03;
    case DType::kFloat32:
      return 1e-5;
    default:
      return 1e-12;
  }
}

// Compares the first tokens of `got` with all of `want`.
void ExpectNear(const ContextCase& shape, const HostArray& got,
                const HostArray& want, const std::string& what) {
  for (int64_t i = 0; i < shape.batch; ++i) {
    for (int64_t token = 0; token < want.tokens; ++token) {
      for (int64_t j = 0; j < want.width; ++j) {
        const double expected = want.at(i, token, j);
        ASSERT_NEAR(got.at(i, token, j), expected,
                    Tolerance(shape.dtype) * (1 + std::abs(expected)))
            << what << " of sample " << i << " token " << token << " column "
            << j;
      }
    }
  }
}

// The chunks of all ranks, one after the other.
HostArray Joined(const ContextCase& shape,
                 const std::vector<ContextResults>& ranks,
                 HostArray ContextResults::*member) {
  HostArray joined{shape.tokens(), (ranks[0].*member).width, {}};
  joined.values.resize(shape.batch * joined.tokens * joined.width);
  for (int64_t i = 0; i < shape.batch; ++i) {
    for (int64_t token = 0; token < joined.tokens; ++token) {
      for (int64_t j = 0; j < joined.width; ++j) {
        joined.at(i, token, j) =
            (ranks[token / shape.chunk].*member).at(i, token % shape.chunk, j);
      }
    }
  }
  return joined;
}

void ExpectReference(const ContextCase& shape, const ContextUses& uses = {}) {
  SCOPED_TRACE(testing::Message()
               << shape.dtype << " ulysses " << shape.ulysses << " ring "
               << shape.ring << " valid " << shape.valid << " of "
               << shape.tokens() << " text " << shape.text
               << " queries per key " << shape.queries_per_key << " causal "
               << shape.causal << " sequences " << shape.sequences.size());
  const ContextProblem problem(shape);
  std::vector<ContextResults> ranks(shape.ranks());
  RunThreadRanks(shape.ranks(), [&](CommunicatorFactory& factory, int rank) {
    CpuDevice device(int64_t{1} << 30);
    const ContextRankGroups groups(factory, shape);
    ranks[rank] = RunContextRank(device, groups, rank, shape, problem, uses);
  });
  const ContextResults want = ReferenceResults(shape, problem, uses);
  ExpectNear(shape, Joined(shape, ranks, &ContextResults::image), want.image,
             "image");
  const HostArray image_grad =
      Joined(shape, ranks, &ContextResults::image_grad);
  ExpectNear(shape, image_grad, want.image_grad, "image gradient");
  for (int64_t i = 0; i < shape.batch; ++i) {
    for (int64_t token = shape.valid; token < shape.tokens(); ++token) {
      for (int64_t j = 0; j < image_grad.width; ++j) {
        ASSERT_EQ(image_grad.at(i, token, j), 0) << "padding " << token;
      }
    }
  }
  if (shape.text == 0) return;
  ExpectNear(shape, ranks[0].text, want.text, "text");
  HostArray text_grad = ranks[0].text_grad;
  for (size_t rank = 1; rank < ranks.size(); ++rank) {
    ASSERT_EQ(ranks[rank].text.values, ranks[0].text.values)
        << "text output of rank " << rank;
    for (size_t i = 0; i < text_grad.values.size(); ++i) {
      text_grad.values[i] += ranks[rank].text_grad.values[i];
    }
  }
  ExpectNear(shape, text_grad, want.text_grad, "text gradient");
}

struct Grid {
  int ulysses, ring;
};

class ContextAttentionTest : public testing::TestWithParam<Grid> {
 protected:
  ContextCase Shape() const {
    return {.ulysses = GetParam().ulysses, .ring = GetParam().ring};
  }
};

INSTANTIATE_TEST_SUITE_P(Grids, ContextAttentionTest,
                         testing::Values(Grid{1, 1}, Grid{1, 2}, Grid{1, 3},
                                         Grid{1, 4}, Grid{1, 8}, Grid{2, 1},
                                         Grid{4, 1}, Grid{2, 2}, Grid{2, 4},
                                         Grid{4, 2}),
                         [](const testing::TestParamInfo<Grid>& grid) {
                           return "Ulysses" +
                                  std::to_string(grid.param.ulysses) + "Ring" +
                                  std::to_string(grid.param.ring);
                         });

TEST_P(ContextAttentionTest, OfImageTokensAlone) {
  ContextCase shape = Shape();
  shape.batch = 2;
  shape.chunk = 5;
  shape.valid = shape.tokens();
  ExpectReference(shape);
}

TEST_P(ContextAttentionTest, OfImageAndTextTokens) {
  ContextCase shape = Shape();
  shape.batch = 3;
  shape.chunk = 3;
  shape.valid = shape.tokens() - 1;
  shape.text = 6;
  shape.text_counts = {6, 0, 2};
  ExpectReference(shape);
}

TEST_P(ContextAttentionTest, WithRanksThatHoldPaddingOnly) {
  ContextCase shape = Shape();
  shape.batch = 2;
  shape.chunk = 2;
  shape.valid = std::max<int64_t>(shape.tokens() / 2 - 1, 1);
  shape.text = 3;
  shape.text_counts = {3, 0};
  ExpectReference(shape);
  shape.text = 0;
  shape.text_counts.clear();
  ExpectReference(shape);
}

TEST_P(ContextAttentionTest, InTrainingPrecisions) {
  ContextCase shape = Shape();
  shape.batch = 2;
  shape.chunk = 20;
  shape.valid = shape.tokens() - 3;
  shape.text = 7;
  shape.text_counts = {7, 4};
  shape.dtype = DType::kFloat32;
  ExpectReference(shape);
  shape.dtype = DType::kBFloat16;
  ExpectReference(shape);
}

TEST_P(ContextAttentionTest, OfQueriesThatShareKeys) {
  ContextCase shape = Shape();
  shape.batch = 2;
  shape.chunk = 3;
  shape.valid = shape.tokens() - 1;
  shape.queries_per_key = 3;
  ExpectReference(shape);
  shape.text = 4;
  shape.text_counts = {4, 1};
  ExpectReference(shape);
}

TEST_P(ContextAttentionTest, OfCausalTokens) {
  ContextCase shape = Shape();
  shape.batch = 2;
  shape.chunk = 5;
  shape.valid = shape.tokens() - 2;
  shape.causal = true;
  for (const DType dtype : {DType::kFloat64, DType::kBFloat16}) {
    shape.dtype = dtype;
    ExpectReference(shape);
  }
}

// Sequences of a ragged batch, which begin and end inside of ranks' chunks, and
// of which some ranks see none of the others'.
TEST_P(ContextAttentionTest, OfPackedSequences) {
  ContextCase shape = Shape();
  shape.chunk = 6;
  shape.valid = shape.tokens();
  const int64_t tokens = shape.tokens();
  shape.sequences = {0, 2, 2, tokens / 2 + 1, tokens - 1, tokens};
  shape.queries_per_key = 2;
  for (const bool causal : {false, true}) {
    shape.causal = causal;
    ExpectReference(shape);
  }
}

// The last block of a model drops its text tokens.
TEST_P(ContextAttentionTest, WithOneOutputUnused) {
  ContextCase shape = Shape();
  shape.batch = 2;
  shape.chunk = 3;
  shape.valid = shape.tokens() - 2;
  shape.text = 4;
  shape.text_counts = {4, 1};
  ExpectReference(shape, {.image = true, .text = false});
  ExpectReference(shape, {.image = false, .text = true});
}

// A plan's memory and traffic are those of the run.
TEST_P(ContextAttentionTest, DryRunsCountTheSameMemoryAndTraffic) {
  std::vector<ContextCase> cases;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    ContextCase shape = Shape();
    shape.batch = 2;
    shape.chunk = 9;
    shape.valid = shape.tokens() - 4;
    shape.text = 5;
    shape.text_counts = {5, 2};
    shape.dtype = dtype;
    cases.push_back(shape);
    shape.text = 0;
    shape.text_counts.clear();
    shape.queries_per_key = 2;
    shape.causal = true;
    shape.sequences = {0, 7, shape.tokens()};
    cases.push_back(shape);
  }
  for (const ContextCase& shape : cases) {
    const ContextProblem problem(shape);
    RunThreadRanks(shape.ranks(), [&](CommunicatorFactory& factory, int rank) {
      CpuDevice device(int64_t{1} << 30);
      const ContextRankGroups groups(factory, shape);
      RunContextRank(device, groups, rank, shape, problem, {});

      CpuDevice dry_device(int64_t{1} << 30, CpuDevice::Mode::kDry);
      DryWorld dry_world(rank, shape.ranks());
      const ContextRankGroups dry_groups(dry_world, shape);
      RunContextRank(dry_device, dry_groups, rank, shape, problem, {});

      EXPECT_EQ(device.Statistics().peak_by_category,
                dry_device.Statistics().peak_by_category);
      for (const auto member :
           {&ContextRankGroups::ulysses, &ContextRankGroups::ring}) {
        const CommunicationStatistics real = (groups.*member)->Statistics();
        const CommunicationStatistics dry = (dry_groups.*member)->Statistics();
        EXPECT_EQ(real.calls, dry.calls);
        EXPECT_EQ(real.sent_bytes, dry.sent_bytes);
      }
    });
  }
}

// A plan's FLOPs: of a causal ring of four blocks each rank computes those
// before its own, and half of its own.
TEST(ContextAttention, CausalRingsComputeNoLaterBlock) {
  ContextCase shape{.ring = 4, .batch = 2, .chunk = 8, .valid = 32};
  shape.causal = true;
  for (int rank = 0; rank < 4; ++rank) {
    CpuDevice device(int64_t{1} << 30, CpuDevice::Mode::kDry);
    DryWorld world(rank, 4);
    const ContextRankGroups groups(world, shape);
    RunContextRank(device, groups, rank, shape, ContextProblem(shape), {});
    const int64_t pairs = rank * 8 * 8 + 8 * 9 / 2;
    // Two products of 2 FLOPs forward, four backward.
    EXPECT_EQ(device.stream().counted().product_flops,
              6 * 2 * shape.batch * pairs * kWidth);
  }
}

// What a plan may promise of a ring's volume.
TEST(ContextAttention, RingSendsKeysAndValuesTwiceAndGradientsOnce) {
  ContextCase shape{.ring = 4, .batch = 2, .chunk = 8, .valid = 32};
  shape.dtype = DType::kBFloat16;
  CpuDevice device(int64_t{1} << 30, CpuDevice::Mode::kDry);
  DryWorld world(1, 4);
  const ContextRankGroups groups(world, shape);
  RunContextRank(device, groups, 1, shape, ContextProblem(shape), {});
  const int64_t block = 2 * shape.batch * shape.chunk * kWidth;
  EXPECT_EQ(groups.ring->Statistics().sent_bytes,
            2 * 3 * block * 2 + 4 * block * 4);
}

}  // namespace
}  // namespace trireme
