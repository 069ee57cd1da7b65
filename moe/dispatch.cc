#include "moe/dispatch.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "moe/expert_slices.h"
#include "moe/node_rows.h"
#include "moe/row_exchange.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/host.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/routing.h"

namespace trireme {

using Moves = ExpertExchange::Moves;

// Where rows go. Where they stay on their rank, the sender's order is that of
// the experts.
struct Dispatch::Routes {
  std::string name;
  SortedRoutes sorted;
  Tensor routes;  // of sorted, without what goes nowhere
  Tensor tokens;
  std::shared_ptr<ExpertRows> rows;
  ExpertSlices slices;

  const Communicators* communicators = nullptr;  // null: rows stay
  std::optional<RowCounts> counts;
  bool by_nodes = false;
  std::shared_ptr<const NodeRows> node_rows;  // null: a row for each route
  std::shared_ptr<const RowChunks> chunks;    // null: in one
  int64_t capacity = 0;                       // rows that memory is taken for
  // int32 [gathered slices·capacity]: the received row of each expert's row;
  // and [capacity] the other way round, of the first slice.
  Tensor by_expert;
  Tensor by_rank;

  // Rows of routes, by expert, to the experts' ranks; and the rows of their
  // tokens.
  Tensor Send(const Tensor& rows) const;
  Tensor SendTokens(const Tensor& x) const;
  // Rows of this rank's experts back to the routes, those of slices summed.
  Tensor Return(const Tensor& rows) const;
  // Has rows go to the experts' ranks. `table`: of each rank's routes those to
  // each expert.
  void MoveRows(ForwardContext& context, const Tensor& experts,
                const DispatchSizes& sizes, const std::vector<int64_t>& table,
                int64_t num_chunks, ShadowedExperts shadowed);
  void Exchange(Device& device, const std::vector<int64_t>& table, int rank);
  // Of rows that move, in place of Exchange.
  void Divide(const Tensor& experts, const std::vector<int64_t>& table,
              int rank, int64_t num_chunks, ShadowedExperts shadowed);
};

namespace {

// Rows that the tokens of one rank have at most for so many of the experts.
int64_t MostRows(const Tensor& experts, int64_t num_experts,
                 int64_t most_of_expert) {
  return std::min(std::min(experts.dim(1), num_experts) * experts.dim(0),
                  num_experts * most_of_expert);
}

// Rows that a rank receives at most.
int64_t MostReceived(const Tensor& experts, const DispatchSizes& sizes,
                     const ExpertExchange& exchange, int64_t ranks,
                     const ExpertSlices& slices) {
  const int64_t own = std::max<int64_t>(1, sizes.experts / ranks);
  const int64_t most =
      MostRows(experts, own, sizes.most_of_expert) * ranks / slices.gathered();
  if (exchange.max_load == 0) return most;
  const auto even = static_cast<double>(experts.num_elements() * slices.copies);
  return std::min(most,
                  static_cast<int64_t>(std::ceil(exchange.max_load * even)));
}

// Whether experts' weights may come to rows at some load.
bool MayGather(const ExpertExchange& exchange) {
  return exchange.moves == Moves::kAdaptive &&
         (exchange.choices.empty() || !exchange.gathered_slices().empty() ||
          std::any_of(exchange.choices.begin(), exchange.choices.end(),
                      [](const ExpertExchange::Choice& choice) {
                        return choice.moves == Moves::kWeights;
                      }));
}

// How many of the tokens go to any of so many experts, where routing is even.
int64_t TokensOfNode(const Tensor& experts, int64_t num_experts, int64_t own) {
  double none = 1;
  for (int64_t choice = 0; choice < experts.dim(1); ++choice) {
    none *=
        static_cast<double>(std::max<int64_t>(0, num_experts - own - choice)) /
        static_cast<double>(std::max<int64_t>(1, num_experts - choice));
  }
  return static_cast<int64_t>(
      std::ceil(static_cast<double>(experts.dim(0)) * (1 - none)));
}

std::vector<int64_t> Evenly(int64_t rows, int64_t groups) {
  std::vector<int64_t> counts(groups, rows / groups);
  for (int64_t g = 0; g < rows % groups; ++g) ++counts[g];
  return counts;
}

// Routes of any rank, of which so many experts from `first` have `load` times
// their share, at most `most`.
std::vector<int64_t> Unevenly(const std::vector<int64_t>& counts, int64_t first,
                              int64_t own, double load, int64_t most) {
  const auto experts = static_cast<int64_t>(counts.size());
  const int64_t all = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  const int64_t hot =
      std::min({all, most,
                static_cast<int64_t>(load * static_cast<double>(all * own) /
                                     static_cast<double>(experts))});
  if (own == experts) return counts;
  std::vector<int64_t> uneven = Evenly(all - hot, experts - own);
  const std::vector<int64_t> of_own = Evenly(hot, own);
  uneven.insert(uneven.begin() + first, of_own.begin(), of_own.end());
  return uneven;
}

// Of a dry device as many as there may be, with rows that count for memory
// alone.
ShadowedExperts Shadowed(const Tensor& experts, const DispatchSizes& sizes,
                         int64_t most, const std::vector<int64_t>& table,
                         const Communicator& group) {
  ShadowedExperts shadowed;
  if (experts.device().dry()) {
    shadowed.experts.resize(std::min(most, sizes.experts));
    std::iota(shadowed.experts.begin(), shadowed.experts.end(), 0);
    shadowed.counts.resize(shadowed.experts.size(), 0);
    shadowed.capacity =
        MostRows(experts, static_cast<int64_t>(shadowed.experts.size()),
                 sizes.most_of_expert);
    return shadowed;
  }
  shadowed.experts = ChooseShadowed(table, group.size(), most, sizes);
  for (const int64_t expert : shadowed.experts) {
    shadowed.counts.push_back(table[group.rank() * sizes.experts + expert]);
    shadowed.capacity += shadowed.counts.back();
  }
  return shadowed;
}

// [ranks, experts]: the counts of all ranks. A dry device is told of no
// other's: all have those of `imagined`.
std::vector<int64_t> GatherCounts(Device& device, Communicator& group,
                                  const std::vector<int64_t>& counts,
                                  const std::vector<int64_t>& imagined,
                                  const std::string& name) {
  const auto experts = static_cast<int64_t>(counts.size());
  const std::vector<int32_t> own(counts.begin(), counts.end());
  const Tensor all =
      Tensor::Empty(device, {group.size() * experts}, DType::kInt32,
                    MemoryCategory::kCommunication, name);
  group
      .AllGather(Upload<int32_t>(device, {experts}, own,
                                 MemoryCategory::kCommunication, name),
                 all, name + " counts")
      .Wait();
  const std::vector<int32_t> values = Download<int32_t>(all);
  if (!values.empty()) return {values.begin(), values.end()};
  std::vector<int64_t> alike;
  for (int rank = 0; rank < group.size(); ++rank) {
    alike.insert(alike.end(), imagined.begin(), imagined.end());
  }
  return alike;
}

}  // namespace

void Dispatch::Routes::Exchange(Device& device,
                                const std::vector<int64_t>& table, int rank) {
  const int64_t ranks = counts->ranks();
  const int64_t experts = static_cast<int64_t>(table.size()) / ranks;
  const int64_t local = experts / ranks;
  const auto arriving = [&](int64_t from, int64_t e) {
    return table[from * experts + rank * local + e];
  };
  // Received rows lie by rank, then by expert.
  std::vector<int32_t> to_received(capacity, 0);
  std::vector<int32_t> to_expert(capacity, 0);
  std::vector<int64_t> next(local, 0);
  std::partial_sum(rows->counts.begin(), rows->counts.begin() + local - 1,
                   next.begin() + 1);
  int64_t at = 0;
  for (int64_t from = 0; from < ranks; ++from) {
    for (int64_t e = 0; e < local; ++e) {
      for (int64_t i = 0; i < arriving(from, e); ++i) {
        to_expert[at] = static_cast<int32_t>(next[e]);
        to_received[next[e]++] = static_cast<int32_t>(at++);
      }
    }
  }
  std::vector<int32_t> of_slices;
  for (int64_t slice = 0; slice < slices.gathered(); ++slice) {
    of_slices.insert(of_slices.end(), to_received.begin(), to_received.end());
  }
  by_expert = Upload<int32_t>(device, {static_cast<int64_t>(of_slices.size())},
                              of_slices, MemoryCategory::kActivations, name);
  by_rank = Upload<int32_t>(device, {capacity}, to_expert,
                            MemoryCategory::kActivations, name);
}

Tensor Dispatch::Routes::Send(const Tensor& rows) const {
  const Tensor copies = CopyGroups(rows, sorted.counts, slices.copies);
  if (communicators == nullptr) return copies;
  return GatherRows(ExchangeRows(*communicators, *counts, by_nodes, copies,
                                 capacity, name + " rows"),
                    by_expert);
}

Tensor Dispatch::Routes::SendTokens(const Tensor& x) const {
  if (node_rows == nullptr) return Send(GatherRows(x, tokens));
  return GatherRows(node_rows->Spread(x), by_expert);
}

Tensor Dispatch::Routes::Return(const Tensor& rows) const {
  Tensor copies = rows;
  if (communicators != nullptr) {
    copies =
        ExchangeRows(*communicators, counts->Transposed(), by_nodes,
                     GatherRows(SumSlices(rows, slices.gathered()), by_rank),
                     slices.copies * sorted.rows(), name + " results");
  }
  return SumCopies(copies, sorted.counts, slices.copies);
}

void Dispatch::Routes::MoveRows(ForwardContext& context, const Tensor& experts,
                                const DispatchSizes& sizes,
                                const std::vector<int64_t>& table,
                                int64_t num_chunks, ShadowedExperts shadowed) {
  const ExpertExchange& exchange = context.parallel.options().experts;
  const int rank = context.parallel.communicators().ExpertGroup().rank();
  const int64_t ranks = counts->ranks();
  const int64_t local = std::max<int64_t>(1, sizes.experts / ranks);
  const int64_t most = MostReceived(experts, sizes, exchange, ranks, slices);
  for (int64_t other = 0; other < ranks; ++other) {
    if (counts->ReceivedBy(other) <= most) continue;
    context.parallel.Refuse(ResourceExhausted(
        "'{}': {} rows are routed to rank {} of ep {}, expected at most {}: "
        "plan.experts.max_load {} times those of even routing",
        name, counts->ReceivedBy(other), other, ranks, most,
        exchange.max_load));
  }
  const int64_t received = counts->ReceivedBy(rank);
  capacity = experts.device().dry() ? std::max(most, received) : received;
  communicators = &context.parallel.communicators();
  // Rows of a rank whose neighbours' slices are here come from its share of the
  // ranks, for each of the slices.
  const int64_t gathered = slices.gathered();
  const int64_t sources = ranks / gathered;
  const int64_t first = rank % gathered * sources;
  rows->counts.clear();
  for (int64_t e = 0; e < local * gathered; ++e) {
    std::vector<int64_t> from;
    for (int64_t other = first; other < first + sources; ++other) {
      from.push_back(table[(other * ranks + rank) * local + e / gathered]);
    }
    rows->counts.push_back(
        std::accumulate(from.begin(), from.end(), int64_t{0}));
    if (exchange.sums_by_rank || gathered > 1) {
      rows->from_ranks.push_back(std::move(from));
    }
  }
  if (gathered > 1) {
    rows->weights = &communicators->ExpertSlices(static_cast<int>(gathered));
  }
  if (num_chunks > 1 || !shadowed.experts.empty()) {
    Divide(experts, table, rank, num_chunks, std::move(shadowed));
    return;
  }
  Exchange(experts.device(), table, rank);
  if (!by_nodes || !exchange.deduplicates) return;
  const int64_t node = communicators->ExpertNode().size();
  const Tensor copies = CopyGroups(tokens.Reshape({tokens.dim(0), 1}),
                                   sorted.counts, slices.copies);
  node_rows = std::make_shared<NodeRows>(
      *communicators, *counts, copies.Reshape({copies.dim(0)}), experts.dim(0),
      TokensOfNode(experts, sizes.experts,
                   std::max<int64_t>(1, sizes.experts * node / ranks)),
      capacity, name);
}

void Dispatch::Routes::Divide(const Tensor& experts,
                              const std::vector<int64_t>& table, int rank,
                              int64_t num_chunks, ShadowedExperts shadowed) {
  auto divided = std::make_shared<RowChunks>(
      MakeRowChunks(experts, table, counts->ranks(), rank, slices, num_chunks,
                    capacity, std::move(shadowed)));
  divided->name = name;
  divided->communicators = communicators;
  divided->by_nodes = by_nodes;
  divided->rows = rows;
  chunks = std::move(divided);
}

Dispatch::Dispatch(ForwardContext& context, const std::string& name,
                   const Tensor& experts, const DispatchSizes& sizes) {
  Device& device = experts.device();
  auto routes = std::make_shared<Routes>();
  routes->name = name;
  routes->sorted = SortRoutes(experts, sizes.experts);
  if (device.dry()) {
    routes->sorted.counts = Evenly(
        MostRows(experts, sizes.experts, sizes.most_of_expert), sizes.experts);
  }
  const int64_t rows = routes->sorted.rows();
  routes->routes = routes->sorted.routes.Slice(0, rows);
  routes->tokens = routes->sorted.tokens.Slice(0, rows);
  routes->rows = std::make_shared<ExpertRows>();
  routes->rows->name = name;
  routes->rows->counts = routes->sorted.counts;
  if (context.parallel.grid().size(Axis::kExpert) > 1) {
    Communicator& group = context.parallel.communicators().ExpertGroup();
    const ExpertExchange& exchange = context.parallel.options().experts;
    ExpertSlices& slices = routes->slices;
    slices = {.slices = sizes.slices, .copies = sizes.slices};
    std::vector<int64_t> imagined = routes->sorted.counts;
    if (exchange.expected_load > 1) {
      const int64_t own = std::max<int64_t>(1, sizes.experts / group.size());
      imagined = Unevenly(
          imagined, group.rank() / sizes.slices * own, own,
          exchange.expected_load,
          MostReceived(experts, sizes, exchange, group.size(), slices) /
              group.size());
    }
    const std::vector<int64_t> table =
        GatherCounts(device, group, routes->sorted.counts, imagined, name);
    if (sizes.slices > 1) routes->rows->ranks_in_order = sizes.experts;
    if (MayGather(exchange)) routes->rows->may_gather = group.size();
    const ExpertExchange::Choice choice =
        ChooseExchange(exchange, table, group.size(), sizes, device.dry());
    routes->by_nodes = choice.by_nodes;
    if (choice.moves == Moves::kWeights) {
      routes->rows->weights = &group;
      routes->rows->counts =
          CountsOfCopies(routes->sorted.counts, slices.copies);
    } else {
      slices.copies = choice.row_copies;
      CHECK_EQ(slices.copies * slices.gathered(), slices.slices) << name;
      CHECK(exchange.shadowed == 0 || slices.slices == 1) << name;
      ShadowedExperts shadowed =
          Shadowed(experts, sizes, exchange.shadowed, table, group);
      // A dry device counts all rows as on their way.
      const std::vector<int64_t> moving = RoutesToSlices(
          device.dry() ? table : Without(shadowed.experts, table, group.size()),
          group.size(), slices);
      routes->counts = CountsBetween(group.size(), moving);
      routes->MoveRows(context, experts, sizes, moving, choice.chunks,
                       std::move(shadowed));
    }
  }
  routes_ = std::move(routes);
}

const std::shared_ptr<ExpertRows>& Dispatch::rows() const {
  return routes_->rows;
}

const std::shared_ptr<const RowChunks>& Dispatch::chunks() const {
  return routes_->chunks;
}

Variable Dispatch::ToExperts(Tape& tape, const Variable& x) const {
  const auto compute = [x = x.value(), routes = routes_] {
    return routes->SendTokens(x);
  };
  Variable rows = tape.Record(
      "rows to experts", {x}, {}, compute(), {},
      [routes = routes_](Tape::Gradients& gradients) {
        gradients.Accumulate(0, SumRows(routes->Return(gradients.TakeOutput()),
                                        routes->sorted.places));
      });
  if (routes_->communicators == nullptr) rows.set_recipe(compute);
  return rows;
}

Variable Dispatch::WeightsToExperts(Tape& tape, const Variable& weights) const {
  const Shape shape = weights.value().shape();
  const int64_t n = shape.num_elements();
  return tape.Record(
      "weights to experts", {weights}, {},
      routes_->Send(
          GatherRows(weights.value().Reshape({n, 1}), routes_->routes)),
      {}, [routes = routes_, shape, n](Tape::Gradients& gradients) {
        const Tensor returned = routes->Return(gradients.TakeOutput());
        gradients.Accumulate(
            0, SumRows(returned, routes->sorted.places.Reshape({n, 1}))
                   .Reshape(shape));
      });
}

Variable Dispatch::FromExperts(Tape& tape, const Variable& rows) const {
  return tape.Record(
      "rows from experts", {rows}, {},
      SumRows(routes_->Return(rows.value()), routes_->sorted.places), {},
      [routes = routes_](Tape::Gradients& gradients) {
        gradients.Accumulate(0, routes->SendTokens(gradients.TakeOutput()));
      });
}

}  // namespace trireme
