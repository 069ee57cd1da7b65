// In how many chunks rows travel shows in no bit of what is trained, however
// unevenly tokens are routed.

#include "moe/experts_in_chunks.h"

#include <cmath>
#include <functional>
#include <vector>

#include "gtest/gtest.h"
#include "moe/moe_layer.h"
#include "parallel/communicators.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

constexpr int kRanks = 4;
constexpr int64_t kTokens = 10;
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

// By rank: the result, the gradients of x and of the routes' weights, and those
// of both products' weights.
using Found = std::vector<std::vector<std::vector<float>>>;

Found RunLayer(const Routes& routes, const ExpertExchange& exchange, Keep keep,
               Tape::WeightGradients when) {
  Found found(kRanks);
  RunThreadRanks(kRanks, [&](CommunicatorFactory& factory, int rank) {
    CpuDevice device(1 << 26);
    const ProcessGrid grid =
        *ProcessGrid::Create({.ep = kRanks, .dp = kRanks}, {}, rank);
    Communicators communicators(factory, grid, {.experts = exchange});
    ParallelContext parallel(device, grid, communicators,
                             {.experts = exchange});
    ParameterStore store(device, DType::kFloat32, /*seed=*/3);
    const MoeLayer layer(store, grid, "moe", kWidth,
                         {.experts = 8, .top_k = 2, .expert_hidden = 12}, keep);
    for (const auto& parameter : store.parameters()) {
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
        experts.push_back(routes(rank, token, choice));
        weights.push_back(0.1F + 0.07F * static_cast<float>(token + choice));
      }
    }
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
    found[rank].push_back(outputs[0].value().ToVector<float>());
    tape.Backward(outputs, {Tensor::FromValues<float>(device, shape, rows)},
                  when);
    tape.RunWeightGradients();
    found[rank].push_back(tape.TakeGradient(x).ToVector<float>());
    found[rank].push_back(tape.TakeGradient(routing.weights).ToVector<float>());
    for (const auto& parameter : store.parameters()) {
      found[rank].push_back(parameter->grad.ToVector<float>());
    }
  });
  return found;
}

TEST(ExpertsInChunksTest, EveryNumberOfChunksHasTheSameBits) {
  for (const Case& c : Cases()) {
    for (const bool by_rank : {false, true}) {
      const Found whole =
          RunLayer(c.routes, {.sums_by_rank = by_rank}, Keep::kValue,
                   Tape::WeightGradients::kImmediate);
      for (const int chunks : {2, 3, 64}) {
        for (const int node_ranks : {1, 2}) {
          const ExpertExchange exchange = {.node_ranks = node_ranks,
                                           .chunks = chunks,
                                           .sums_by_rank = by_rank};
          EXPECT_EQ(RunLayer(c.routes, exchange, Keep::kValue,
                             Tape::WeightGradients::kImmediate),
                    whole)
              << c.name << ", " << chunks << " by " << node_ranks;
        }
      }
      EXPECT_EQ(RunLayer(c.routes, {.chunks = 2, .sums_by_rank = by_rank},
                         Keep::kRecipe, Tape::WeightGradients::kDeferred),
                whole)
          << c.name;
    }
  }
}

}  // namespace
}  // namespace trireme
