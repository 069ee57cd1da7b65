// Rows reach the ranks of their experts and come back to their tokens, however
// unevenly they are routed.

#include "moe/dispatch.h"

#include <algorithm>
#include <array>
#include <functional>
#include <mutex>
#include <ostream>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parallel/grid/communicators.h"
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

// ep, how many ranks of a group share a node, and whether a token's row goes
// to each node once.
struct Group {
  int ep;
  int node_ranks;
  bool once;

  friend std::ostream& operator<<(std::ostream& out, const Group& group) {
    return out << "ep " << group.ep << " by " << group.node_ranks
               << (group.once ? " once" : "");
  }
};

// Runs body on every rank of a grid whose experts are so divided.
void OnRanks(const Group& group,
             const std::function<void(ForwardContext&, int)>& body) {
  RunThreadRanks(kRanks, [&](CommunicatorFactory& factory, int rank) {
    CpuDevice device(1 << 24);
    const ProcessGrid grid =
        *ProcessGrid::Create({.ep = group.ep, .dp = kRanks}, {}, rank);
    const ExpertExchange exchange = {.node_ranks = group.node_ranks,
                                     .deduplicates = group.once};
    Communicators communicators(factory, grid, {.experts = exchange});
    ParallelContext parallel(device, grid, communicators,
                             {.experts = exchange});
    Tape tape(device);
    ForwardContext context{tape, parallel};
    body(context, rank);
  });
}

Tensor Experts(Device& device, const Routing& routing, int rank) {
  return Tensor::FromValues<int32_t>(device, {kTokens, kChoices},
                                     ExpertsOf(routing, rank));
}

constexpr std::array<Group, 9> kGroups = {{{1, 1, false},
                                           {2, 1, false},
                                           {4, 1, false},
                                           {4, 2, false},
                                           {4, 2, true},
                                           {8, 2, false},
                                           {8, 2, true},
                                           {8, 4, false},
                                           {8, 4, true}}};

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
    for (const Group& group : kGroups) {
      SCOPED_TRACE(testing::Message() << c.name << ", " << group);
      OnRanks(group, [&](ForwardContext& context, int rank) {
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
    for (const Group& group : kGroups) {
      const int ep = group.ep;
      if (ep == 1) continue;
      SCOPED_TRACE(testing::Message() << c.name << ", " << group);
      OnRanks(group, [&](ForwardContext& context, int rank) {
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

// Both of a token's experts lie on the other node, on ranks of their own: its
// row goes there once, and its result's gradient; both results come back.
TEST(DispatchTest, ATokensRowGoesToANodeOnce) {
  const Routing routing = [](int rank, int64_t token, int64_t choice) {
    const int other = rank < kRanks / 2 ? kRanks / 2 : 0;
    return static_cast<int32_t>(other + (token + 2 * choice) % 4);
  };
  std::array<int64_t, 2> sent{}, saved{};
  for (const bool once : {false, true}) {
    std::mutex mutex;
    OnRanks({8, 4, once}, [&](ForwardContext& context, int rank) {
      Device& device = context.parallel.device();
      const Dispatch dispatch(context, "layer", Experts(device, routing, rank),
                              {.experts = kExperts, .most_of_expert = kTokens});
      // Of the rows alone.
      Communicator& across =
          context.parallel.communicators().ExpertsAcrossNodes();
      const int64_t before = across.Statistics().sent_bytes;
      Tape& tape = context.tape;
      const Variable x = tape.Leaf(
          Tensor::FromValues<double>(device, {kTokens, kWidth}, RowsOf(rank)));
      const Variable outputs[] = {
          dispatch.FromExperts(tape, dispatch.ToExperts(tape, x))};
      tape.Backward(outputs, {outputs[0].value().Clone()},
                    Tape::WeightGradients::kImmediate);
      const std::lock_guard lock(mutex);
      sent[once] += across.Statistics().sent_bytes - before;
      saved[once] += across.Statistics().saved_bytes;
    });
  }
  const int64_t rows = kRanks * kTokens * kWidth * sizeof(double);
  EXPECT_EQ(sent[0], 4 * 2 * rows);
  EXPECT_EQ(sent[1], (2 * 1 + 2 * 2) * rows);
  EXPECT_EQ(saved[0], 0);
  EXPECT_EQ(saved[1], sent[0] - sent[1]);
}

}  // namespace
}  // namespace trireme
