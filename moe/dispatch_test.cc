// Rows reach the ranks of their experts and come back to their tokens, however
// unevenly they are routed.

#include "moe/dispatch.h"

#include <algorithm>
#include <array>
#include <functional>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parallel/communicators.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

using testing::ElementsAreArray;

constexpr int kRanks = 8;
constexpr int64_t kExperts = 8;
constexpr int64_t kTokens = 6;
constexpr int64_t kChoices = 2;
constexpr int64_t kWidth = 3;

// The expert of a rank's token in one of its choices; −1: none.
using Routing = std::function<int32_t(int rank, int64_t token, int64_t choice)>;

std::vector<int32_t> ExpertsOf(const Routing& routing, int rank) {
  std::vector<int32_t> experts;
  for (int64_t token = 0; token < kTokens; ++token) {
    for (int64_t choice = 0; choice < kChoices; ++choice) {
      experts.push_back(routing(rank, token, choice));
    }
  }
  return experts;
}

// Row `token` of a rank has its number in every column.
double RowValue(int rank, int64_t token) {
  return 100.0 * (rank + 1) + static_cast<double>(token);
}

std::vector<double> RowsOf(int rank) {
  std::vector<double> rows;
  for (int64_t token = 0; token < kTokens; ++token) {
    rows.insert(rows.end(), kWidth, RowValue(rank, token));
  }
  return rows;
}

// Runs body on every rank of a grid whose experts are divided by ep, with
// `node_ranks` of each expert group's ranks on a node.
void OnRanks(int ep, int node_ranks,
             const std::function<void(ForwardContext&, int)>& body) {
  RunThreadRanks(kRanks, [&](CommunicatorFactory& factory, int rank) {
    CpuDevice device(1 << 24);
    const ProcessGrid grid =
        *ProcessGrid::Create({.ep = ep, .dp = kRanks}, {}, rank);
    Communicators communicators(factory, grid,
                                {.experts = {.node_ranks = node_ranks}});
    ParallelContext parallel(device, grid, communicators,
                             {.experts = {.node_ranks = node_ranks}});
    Tape tape(device);
    ForwardContext context{tape, parallel};
    body(context, rank);
  });
}

Tensor Experts(Device& device, const Routing& routing, int rank) {
  return Tensor::FromValues<int32_t>(device, {kTokens, kChoices},
                                     ExpertsOf(routing, rank));
}

// ep, and how many ranks of a group share a node.
constexpr std::array<std::pair<int, int>, 6> kGroups = {
    {{1, 1}, {2, 1}, {4, 1}, {4, 2}, {8, 2}, {8, 4}}};

struct Case {
  const char* name;
  Routing routing;
};

std::vector<Case> Cases() {
  return {{"spread",
           [](int rank, int64_t token, int64_t choice) {
             return static_cast<int32_t>(
                 (rank + 3 * token + choice * (1 + token % 3)) % kExperts);
           }},
          {"all to one expert",
           [](int, int64_t, int64_t choice) { return choice == 0 ? 5 : -1; }},
          {"a rank without tokens",
           [](int rank, int64_t token, int64_t choice) {
             return rank == 1 ? -1 : static_cast<int32_t>((token + choice) % 3);
           }},
          {"nothing to anyone", [](int, int64_t, int64_t) { return -1; }}};
}

// With experts that change nothing a token gets its row once for each route,
// and a row's gradient is that of all its routes.
TEST(DispatchTest, TokensGetTheirOwnRowsBack) {
  for (const Case& c : Cases()) {
    for (const auto& [ep, node_ranks] : kGroups) {
      SCOPED_TRACE(testing::Message()
                   << c.name << ", ep " << ep << " by " << node_ranks);
      OnRanks(ep, node_ranks, [&, ep = ep](ForwardContext& context, int rank) {
        Device& device = context.parallel.device();
        Tape& tape = context.tape;
        const Dispatch dispatch(
            context, "layer", Experts(device, c.routing, rank),
            {.experts = kExperts, .most_of_expert = kTokens});
        const Shape shape = {kTokens, kWidth};
        const Variable x =
            tape.Leaf(Tensor::FromValues<double>(device, shape, RowsOf(rank)));
        const Variable outputs[] = {
            dispatch.FromExperts(tape, dispatch.ToExperts(tape, x))};
        std::vector<double> expected = RowsOf(rank);
        for (int64_t i = 0; i < kTokens * kWidth; ++i) {
          double routes = 0;
          for (int64_t choice = 0; choice < kChoices; ++choice) {
            routes += c.routing(rank, i / kWidth, choice) >= 0 ? 1 : 0;
          }
          expected[i] *= routes;
        }
        EXPECT_THAT(outputs[0].value().ToVector<double>(),
                    ElementsAreArray(expected));
        tape.Backward(outputs,
                      {Tensor::FromValues<double>(device, shape, RowsOf(rank))},
                      Tape::WeightGradients::kImmediate);
        EXPECT_THAT(tape.TakeGradient(x).ToVector<double>(),
                    ElementsAreArray(expected));
      });
    }
  }
}

// Sums over an expert's rows have the same bits in every run only where rows
// have one order.
TEST(DispatchTest, AnExpertHasItsRowsInTheOrderOfRanksAndTokens) {
  for (const Case& c : Cases()) {
    for (const auto& [ep, node_ranks] : kGroups) {
      if (ep == 1) continue;
      SCOPED_TRACE(testing::Message()
                   << c.name << ", ep " << ep << " by " << node_ranks);
      OnRanks(ep, node_ranks, [&, ep = ep](ForwardContext& context, int rank) {
        Device& device = context.parallel.device();
        Tape& tape = context.tape;
        const Dispatch dispatch(
            context, "layer", Experts(device, c.routing, rank),
            {.experts = kExperts, .most_of_expert = kTokens});
        const Variable x(Tensor::FromValues<double>(device, {kTokens, kWidth},
                                                    RowsOf(rank)));
        std::vector<double> numbers;
        for (int64_t token = 0; token < kTokens; ++token) {
          numbers.insert(numbers.end(), kChoices, RowValue(rank, token));
        }
        const Variable weights(
            Tensor::FromValues<double>(device, {kTokens, kChoices}, numbers));
        const int64_t local = kExperts / ep;
        const int64_t first = rank % ep * local;
        const int begin = rank / ep * ep;
        std::vector<double> expected;
        std::vector<int64_t> counts(local, 0);
        for (int64_t expert = first; expert < first + local; ++expert) {
          for (int from = begin; from < begin + ep; ++from) {
            for (int64_t token = 0; token < kTokens; ++token) {
              for (int64_t choice = 0; choice < kChoices; ++choice) {
                if (c.routing(from, token, choice) != expert) continue;
                expected.push_back(RowValue(from, token));
                ++counts[expert - first];
              }
            }
          }
        }
        EXPECT_THAT(dispatch.rows()->counts, ElementsAreArray(counts));
        std::vector<double> first_columns;
        const std::vector<double> rows =
            dispatch.ToExperts(tape, x).value().ToVector<double>();
        for (size_t i = 0; i < rows.size(); i += kWidth) {
          first_columns.push_back(rows[i]);
        }
        EXPECT_THAT(first_columns, ElementsAreArray(expected));
        EXPECT_THAT(
            dispatch.WeightsToExperts(tape, weights).value().ToVector<double>(),
            ElementsAreArray(expected));
      });
    }
  }
}

}  // namespace
}  // namespace trireme
