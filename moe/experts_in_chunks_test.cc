// In how many chunks rows travel, which experts are shadowed, and to how many
// of an expert's ranks a row goes, shows in no bit of what is trained, however
// unevenly tokens are routed.

#include "moe/experts_in_chunks.h"

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "gtest/gtest.h"
#include "moe/moe_layer.h"
#include "parallel/grid/communicators.h"
#include "runtime/autograd/parameter.h"
#include "runtime/comm/dry.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/device/asynchronous_cpu_device_testing.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

constexpr int kRanks = 4;
constexpr int64_t kTokens = 40;
constexpr int64_t kWidth = 6;

// The expert of a rank's token in one of its two choices; −1: none.
using Routes = std::function<int32_t(int rank, int64_t token, int64_t choice)>;

struct Case {
  const char* name;
  Routes routes;
};

std::vector<Case> Cases() {
  return {{"spread",
           [](int rank, int64_t token, int64_t choice) {
             return static_cast<int32_t>(
                 (rank + 3 * token + choice * (1 + token % 3)) % 8);
           }},
          {"all to one expert",
           [](int, int64_t, int64_t choice) { return choice == 0 ? 5 : -1; }},
          {"a rank without tokens",
           [](int rank, int64_t token, int64_t choice) {
             return rank == 1 ? -1 : static_cast<int32_t>((token + choice) % 3);
           }},
          {"nothing to anyone", [](int, int64_t, int64_t) { return -1; }}};
}

struct Found {
  // By rank: the result, the gradients of x and of the routes' weights, and
  // those of the router's weights, both products' weights and their biases.
  std::vector<std::vector<std::vector<float>>> values;
  std::vector<int64_t> peak_bytes;
  int64_t sent_bytes = 0;
};

struct How {
  Keep keep = Keep::kValue;
  Tape::WeightGradients when = Tape::WeightGradients::kImmediate;
  // Of streams that overtake one another; 0: the host's own.
  uint64_t seed = 0;
  int64_t experts = 8;
  int ep = kRanks;
  // Each rank without the others and without arithmetic.
  bool dry = false;
};

std::unique_ptr<Device> DeviceOf(const How& how, int rank) {
  constexpr int64_t kBytes = 1 << 26;
  if (how.dry) {
    return std::make_unique<CpuDevice>(std::numeric_limits<int64_t>::max(),
                                       CpuDevice::Mode::kDry);
  }
  if (how.seed == 0) return std::make_unique<CpuDevice>(kBytes);
  return std::make_unique<AsynchronousCpuDevice>(kBytes, 8 * how.seed + rank);
}

// One step after the other, each of which moves the weights along their
// gradients.
Found RunSteps(const Routes& routes, const std::vector<ExpertExchange>& steps,
               const How& how) {
  // Groups of ranks for all steps.
  ExpertExchange groups = steps.front();
  if (steps.size() > 1) {
    groups.moves = ExpertExchange::Moves::kAdaptive;
    groups.chunks = 2;
  }
  Found all{.values = std::vector<std::vector<std::vector<float>>>(kRanks),
            .peak_bytes = std::vector<int64_t>(kRanks)};
  std::mutex mutex;
  const auto run = [&](CommunicatorFactory& factory, int rank) {
    const std::unique_ptr<Device> made = DeviceOf(how, rank);
    Device& device = *made;
    std::vector<std::vector<float>>& found = all.values[rank];
    const ProcessGrid grid =
        *ProcessGrid::Create({.ep = how.ep, .dp = kRanks}, {}, rank);
    Communicators communicators(factory, grid, {.experts = groups});
    ParameterStore store(device, DType::kFloat32, /*seed=*/3);
    const MoeLayer layer(
        store, grid, "moe", kWidth,
        {.experts = how.experts, .top_k = 2, .expert_hidden = 12, .bias = true},
        how.keep);
    for (const auto& parameter : store.parameters()) {
      if (parameter->name.ends_with(".bias")) {
        parameter->initializer = {.kind = Initializer::Kind::kNormal,
                                  .stddev = 0.5};
        InitializeParameter(store.seed(), *parameter);
      }
      parameter->grad =
          Tensor::Zeros(device, parameter->value.shape(), DType::kFloat32);
    }
    std::vector<float> rows, weights;
    std::vector<int32_t> experts;
    for (int64_t token = 0; token < kTokens; ++token) {
      for (int64_t i = 0; i < kWidth; ++i) {
        rows.push_back(std::sin(static_cast<float>(7 * rank + 3 * token + i)));
      }
      for (int64_t choice = 0; choice < 2; ++choice) {
        int32_t expert = routes(rank, token, choice);
        if (expert >= 0) expert %= static_cast<int32_t>(how.experts);
        // No router has a token go to an expert twice.
        if (choice == 1 && expert == experts.back()) expert = -1;
        experts.push_back(expert);
        weights.push_back(0.1F + 0.07F * static_cast<float>(token + choice));
      }
    }
    for (const ExpertExchange& exchange : steps) {
      ParallelContext parallel(device, grid, communicators,
                               {.experts = exchange});
      Tape tape(device);
      ForwardContext context{tape, parallel};
      const Shape shape = {kTokens, kWidth};
      const Variable x =
          tape.Leaf(Tensor::FromValues<float>(device, shape, rows));
      Routing routing;
      routing.weights =
          tape.Leaf(Tensor::FromValues<float>(device, {kTokens, 2}, weights));
      routing.experts =
          Tensor::FromValues<int32_t>(device, {kTokens, 2}, experts);
      routing.most_of_expert = 2 * kTokens;
      int besides = 0;
      const Variable outputs[] = {
          layer.ThroughExperts(context, x, routing, [&] { ++besides; })};
      EXPECT_EQ(besides, 1);
      found.push_back(outputs[0].value().ToVector<float>());
      tape.Backward(outputs, {Tensor::FromValues<float>(device, shape, rows)},
                    how.when);
      tape.RunWeightGradients();
      found.push_back(tape.TakeGradient(x).ToVector<float>());
      found.push_back(tape.TakeGradient(routing.weights).ToVector<float>());
      for (const auto& parameter : store.parameters()) {
        found.push_back(parameter->grad.ToVector<float>());
        AddInPlace(parameter->grad, parameter->value, /*factor=*/-1e-4);
      }
    }
    const std::lock_guard lock(mutex);
    all.peak_bytes[rank] = device.Statistics().peak_bytes;
    all.sent_bytes += communicators.Statistics(Cause::kExperts).sent_bytes;
  };
  if (!how.dry) RunThreadRanks(kRanks, run);
  for (int rank = 0; rank < kRanks && how.dry; ++rank) {
    DryWorld world(rank, kRanks);
    run(world, rank);
  }
  return all;
}

Found RunLayer(const Routes& routes, const ExpertExchange& exchange,
               const How& how = {}) {
  return RunSteps(routes, {exchange}, how);
}

TEST(ExpertsInChunksTest, NeitherChunksNorShadowsChangeABit) {
  for (const Case& c : Cases()) {
    for (const bool by_rank : {false, true}) {
      const Found whole = RunLayer(c.routes, {.sums_by_rank = by_rank});
      const auto expect_same = [&](ExpertExchange exchange,
                                   const How& how = {}) {
        exchange.sums_by_rank = by_rank;
        EXPECT_EQ(RunLayer(c.routes, exchange, how).values, whole.values)
            << c.name << ", " << exchange.chunks << " chunks by "
            << exchange.node_ranks << ", " << exchange.shadowed
            << " shadowed, seed " << how.seed;
      };
      for (const int node_ranks : {1, 2}) {
        for (const int chunks : {2, 3, 64}) {
          expect_same({.node_ranks = node_ranks, .chunks = chunks});
        }
      }
      expect_same({.chunks = 2}, {.keep = Keep::kRecipe,
                                  .when = Tape::WeightGradients::kDeferred});
      for (const uint64_t seed : {1, 2, 3}) {
        expect_same({.chunks = 3}, {.seed = seed});
        expect_same({.node_ranks = 2, .chunks = 2}, {.seed = seed});
      }
      // The sums of others' rows come from their ranks.
      if (!by_rank) continue;
      expect_same({.shadowed = 2});
      expect_same({.chunks = 3, .shadowed = 1});
      expect_same(
          {.chunks = 2, .shadowed = 8},
          {.keep = Keep::kRecipe, .when = Tape::WeightGradients::kDeferred});
      for (const uint64_t seed : {1, 2, 3}) {
        expect_same({.chunks = 2, .shadowed = 2}, {.seed = seed});
      }
    }
  }
}

// Two ranks share an expert, or four do.
TEST(ExpertsInChunksTest, NorToHowManyOfAnExpertsRanksRowsGo) {
  using Moves = ExpertExchange::Moves;
  for (const Case& c : Cases()) {
    for (const int slices : {2, 4}) {
      const int64_t experts = kRanks / slices;
      const Found all =
          RunLayer(c.routes, {.slices = slices, .sums_by_rank = true},
                   {.experts = experts});
      const auto expect_same = [&](ExpertExchange exchange, How how = {}) {
        exchange.slices = slices;
        exchange.sums_by_rank = true;
        how.experts = experts;
        EXPECT_EQ(RunLayer(c.routes, exchange, how).values, all.values)
            << c.name << ", to " << exchange.row_copies << " of " << slices
            << " in " << exchange.chunks << " chunks by " << exchange.node_ranks
            << ", moves " << static_cast<int>(exchange.moves) << ", seed "
            << how.seed;
      };
      expect_same({.moves = Moves::kWeights});
      expect_same({.moves = Moves::kAdaptive});
      for (int copies = 1; copies <= slices; copies *= 2) {
        for (const int chunks : {1, 3}) {
          expect_same({.chunks = chunks, .row_copies = copies});
          expect_same(
              {.node_ranks = 2, .chunks = chunks, .row_copies = copies});
        }
        expect_same(
            {.chunks = 2, .row_copies = copies},
            {.keep = Keep::kRecipe, .when = Tape::WeightGradients::kDeferred});
        expect_same(
            {.node_ranks = 2, .deduplicates = true, .row_copies = copies},
            {.seed = 3});
        expect_same({.chunks = 2, .row_copies = copies}, {.seed = 1});
        expect_same({.row_copies = copies}, {.seed = 2});
      }
    }
  }
}

void ExpectNear(const std::vector<float>& found,
                const std::vector<float>& expected, const char* what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_NEAR(found[i], expected[i], 1e-5 * (1 + std::abs(expected[i])))
        << what << ", " << i;
  }
}

// Of weights [experts, outer, hidden, inner] a rank's slice of its expert.
std::vector<float> SliceOf(const std::vector<float>& all, int rank, int slices,
                           int64_t outer, int64_t inner) {
  constexpr int64_t kHidden = 12;
  const int64_t expert = rank / slices, width = kHidden / slices;
  const int64_t first = rank % slices * width;
  std::vector<float> slice;
  for (int64_t o = 0; o < outer; ++o) {
    const auto begin =
        all.begin() + ((expert * outer + o) * kHidden + first) * inner;
    slice.insert(slice.end(), begin, begin + width * inner);
  }
  return slice;
}

// `whole`: of ranks that have all experts, of whose weights each finds the
// gradients of its own tokens.
void ExpectSlicesOf(const Found& whole, const Found& shared, int slices,
                    const char* name) {
  constexpr int kIn = 4, kOut = 5, kInBias = 6, kOutBias = 7;
  const auto sum = [&](int tensor) {
    std::vector<float> all = whole.values[0][tensor];
    for (int rank = 1; rank < kRanks; ++rank) {
      const std::vector<float>& values = whole.values[rank][tensor];
      for (size_t i = 0; i < all.size(); ++i) all[i] += values[i];
    }
    return all;
  };
  const std::vector<float> in = sum(kIn), out = sum(kOut);
  const std::vector<float> in_bias = sum(kInBias);
  for (int rank = 0; rank < kRanks; ++rank) {
    const auto& found = shared.values[rank];
    // The result, and the gradients of x, of the routes' weights and, of a
    // rank's own tokens, of the second product's biases.
    for (const int tensor : {0, 1, 2, kOutBias}) {
      ExpectNear(found[tensor], whole.values[rank][tensor], name);
    }
    ExpectNear(found[kIn], SliceOf(in, rank, slices, 2, kWidth), name);
    ExpectNear(found[kOut], SliceOf(out, rank, slices, kWidth, 1), name);
    ExpectNear(found[kInBias], SliceOf(in_bias, rank, slices, 2, 1), name);
  }
}

// What a rank with all experts whole finds, but for rounding.
TEST(ExpertsInChunksTest, SlicesAddUpToTheirExperts) {
  for (const Case& c : Cases()) {
    for (const int slices : {2, 4}) {
      const int64_t experts = kRanks / slices;
      const Found whole = RunLayer(c.routes, {}, {.experts = experts, .ep = 1});
      for (const bool by_rank : {false, true}) {
        ExpertExchange exchange = {.slices = slices, .sums_by_rank = by_rank};
        if (by_rank) exchange.row_copies = 1;
        const Found shared = RunLayer(c.routes, exchange, {.experts = experts});
        ExpectSlicesOf(whole, shared, slices, c.name);
      }
    }
  }
}

TEST(ExpertsInChunksTest, WhatMovesMayChangeFromStepToStep) {
  const Routes routes = Cases()[0].routes;
  const ExpertExchange all = {.slices = 4, .sums_by_rank = true};
  ExpertExchange one = all, two = all, weights = all;
  one.row_copies = 1;
  one.chunks = 2;
  two.row_copies = 2;
  weights.moves = ExpertExchange::Moves::kWeights;
  const How how = {.experts = 1};
  EXPECT_TRUE(RunSteps(routes, {one, all, two, weights, one}, how).values ==
              RunSteps(routes, {all, all, all, all, all}, how).values);
}

// However rows are routed and whatever moves, a step that was run dry has the
// memory that it needs.
TEST(ExpertsInChunksTest, NothingTakesMoreMemoryThanARunWithoutArithmetic) {
  using Moves = ExpertExchange::Moves;
  for (const int slices : {1, 2, 4}) {
    const How how = {.experts = slices == 1 ? 8 : kRanks / slices};
    How dry = how;
    dry.dry = true;
    for (ExpertExchange exchange : std::vector<ExpertExchange>{
             {},
             {.chunks = 3},
             {.node_ranks = 2, .deduplicates = true},
             {.row_copies = 1},
             {.chunks = 2, .row_copies = 1},
             {.node_ranks = 2, .deduplicates = true, .row_copies = 1},
             {.moves = Moves::kWeights},
             {.moves = Moves::kAdaptive}}) {
      exchange.slices = slices;
      exchange.sums_by_rank = true;
      for (const Case& c : Cases()) {
        // Whatever load is expected, memory is taken for the most.
        ExpertExchange uneven = exchange;
        uneven.expected_load = 1.5;
        const std::vector<int64_t> bound =
            RunLayer(c.routes, uneven, dry).peak_bytes;
        EXPECT_EQ(RunLayer(c.routes, exchange, dry).peak_bytes, bound);
        const std::vector<int64_t> peak =
            RunLayer(c.routes, exchange, how).peak_bytes;
        // Products pad the last rows of each group, of which there are more
        // where weights come: as much as all else at such sizes.
        const int64_t padding =
            exchange.moves == Moves::kAdaptive ? 20 << 10 : 0;
        for (int rank = 0; rank < kRanks; ++rank) {
          EXPECT_LE(peak[rank], bound[rank] + padding)
              << c.name << ", " << slices << " slices, to "
              << exchange.row_copies << " in " << exchange.chunks
              << " chunks by " << exchange.node_ranks << ", moves "
              << static_cast<int>(exchange.moves);
        }
      }
    }
  }
}

TEST(ExpertsInChunksTest, FewerCopiesOfRowsAreFewerBytes) {
  const Routes routes = Cases()[0].routes;
  const auto sent = [&](int copies) {
    return RunLayer(routes,
                    {.slices = 4, .row_copies = copies, .sums_by_rank = true},
                    {.experts = 1})
        .sent_bytes;
  };
  // A quarter of a SwiGLU of 12 channels goes to a neighbour, forward and
  // backward, and its gradient back; its biases are not read backward.
  const int64_t slices =
      kRanks * (3 * (3 * kWidth * 12 / 4) + 2 * (2 * 12 / 4)) * sizeof(float);
  // Rows and the weights of their routes go there and back, forward and
  // backward. Of four copies three go to other ranks, of two on average one and
  // a half; all slices together have no row go.
  const int64_t rows = kRanks * kTokens * (4 * kWidth + 2) * sizeof(float);
  EXPECT_EQ(sent(4) - sent(2), 3 * rows / 2 - slices);
  EXPECT_EQ(sent(4) - sent(1), 3 * rows - 3 * slices);
}

TEST(ExpertsInChunksTest, AShadowedExpertKeepsRowsAtHome) {
  const Routes all_to_one = [](int, int64_t, int64_t choice) {
    return choice == 0 ? 5 : -1;
  };
  const Found rows = RunLayer(all_to_one, {.sums_by_rank = true});
  const Found shadowed =
      RunLayer(all_to_one, {.shadowed = 1, .sums_by_rank = true});
  EXPECT_LT(shadowed.sent_bytes, rows.sent_bytes * 3 / 4);
}

}  // namespace
}  // namespace trireme
