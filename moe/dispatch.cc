#include "moe/dispatch.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/device/host.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/routing.h"

namespace trireme {

// Where rows go. Without a group the sender's order is that of the experts.
struct Dispatch::Routes {
  std::string name;
  SortedRoutes sorted;
  Tensor routes;  // of sorted, without what goes nowhere
  Tensor tokens;
  std::vector<int64_t> counts;

  Communicator* group = nullptr;
  std::vector<int64_t> sent;      // rows to each rank
  std::vector<int64_t> received;  // rows from each rank
  int64_t capacity = 0;           // rows that memory is taken for
  Tensor by_expert;  // int32 [capacity]: the received row of each expert's row
  Tensor by_rank;    // and the other way round

  // Rows of routes, by expert, to the experts' ranks.
  Tensor Send(const Tensor& rows) const;
  // Rows of this rank's experts back to the routes.
  Tensor Return(const Tensor& rows) const;
  void Exchange(const Tensor& experts, int64_t num_experts,
                int64_t most_of_expert);
};

namespace {

// Rows that the tokens of one rank have at most for so many of the experts.
int64_t MostRows(const Tensor& experts, int64_t num_experts,
                 int64_t most_of_expert) {
  return std::min(std::min(experts.dim(1), num_experts) * experts.dim(0),
                  num_experts * most_of_expert);
}

std::vector<int64_t> Evenly(int64_t rows, int64_t groups) {
  std::vector<int64_t> counts(groups, rows / groups);
  for (int64_t g = 0; g < rows % groups; ++g) ++counts[g];
  return counts;
}

int64_t SumOf(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

// counts[rank, local expert] of what each rank sends here. A dry device, where
// nothing arrives, takes all ranks for alike.
std::vector<int64_t> ExchangeCounts(Device& device, Communicator& group,
                                    const std::vector<int64_t>& counts,
                                    const std::string& name) {
  const int64_t ranks = group.size();
  const auto local = static_cast<int64_t>(counts.size()) / ranks;
  const std::vector<int32_t> own(counts.begin(), counts.end());
  const Tensor sent = Upload<int32_t>(device, {ranks, local}, own,
                                      MemoryCategory::kCommunication, name);
  const Tensor received = Tensor::Empty(device, {ranks, local}, DType::kInt32,
                                        MemoryCategory::kCommunication, name);
  group.AllToAll(sent, received, name + " counts").Wait();
  const std::vector<int32_t> values = Download<int32_t>(received);
  if (!values.empty()) return {values.begin(), values.end()};
  const auto first = counts.begin() + group.rank() * local;
  std::vector<int64_t> alike;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    alike.insert(alike.end(), first, first + local);
  }
  return alike;
}

}  // namespace

void Dispatch::Routes::Exchange(const Tensor& experts, int64_t num_experts,
                                int64_t most_of_expert) {
  Device& device = experts.device();
  const int64_t ranks = group->size();
  const int64_t local = num_experts / ranks;
  const std::vector<int64_t> arriving =
      ExchangeCounts(device, *group, sorted.counts, name);
  counts.assign(local, 0);
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const auto of_rank = sorted.counts.begin() + rank * local;
    sent.push_back(std::accumulate(of_rank, of_rank + local, int64_t{0}));
    const auto from_rank = arriving.begin() + rank * local;
    received.push_back(
        std::accumulate(from_rank, from_rank + local, int64_t{0}));
    for (int64_t e = 0; e < local; ++e) counts[e] += from_rank[e];
  }
  const int64_t rows = SumOf(received);
  capacity =
      device.dry() ? MostRows(experts, local, most_of_expert) * ranks : rows;
  // Received rows lie by rank, then by expert.
  std::vector<int32_t> to_received(capacity, 0);
  std::vector<int32_t> to_expert(capacity, 0);
  std::vector<int64_t> next(local, 0);
  std::partial_sum(counts.begin(), counts.end() - 1, next.begin() + 1);
  int64_t from = 0;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    for (int64_t e = 0; e < local; ++e) {
      for (int64_t i = 0; i < arriving[rank * local + e]; ++i) {
        to_expert[from] = static_cast<int32_t>(next[e]);
        to_received[next[e]++] = static_cast<int32_t>(from++);
      }
    }
  }
  by_expert = Upload<int32_t>(device, {capacity}, to_received,
                              MemoryCategory::kActivations, name);
  by_rank = Upload<int32_t>(device, {capacity}, to_expert,
                            MemoryCategory::kActivations, name);
}

Tensor Dispatch::Routes::Send(const Tensor& rows) const {
  if (group == nullptr) return rows;
  const Tensor arrived =
      Tensor::Empty(rows.device(), {capacity, rows.dim(1)}, rows.dtype(),
                    MemoryCategory::kCommunication, name);
  group
      ->AllToAllV(rows, sent, arrived.Slice(0, SumOf(received)), received,
                  name + " rows")
      .Wait();
  return GatherRows(arrived, by_expert);
}

Tensor Dispatch::Routes::Return(const Tensor& rows) const {
  if (group == nullptr) return rows;
  const Tensor by_sender = GatherRows(rows, by_rank);
  const Tensor returned =
      Tensor::Empty(rows.device(), {SumOf(sent), rows.dim(1)}, rows.dtype(),
                    MemoryCategory::kCommunication, name);
  group
      ->AllToAllV(by_sender.Slice(0, SumOf(received)), received, returned, sent,
                  name + " results")
      .Wait();
  return returned;
}

Dispatch::Dispatch(ForwardContext& context, const std::string& name,
                   const Tensor& experts, int64_t num_experts,
                   int64_t most_of_expert) {
  auto routes = std::make_shared<Routes>();
  routes->name = name;
  routes->sorted = SortRoutes(experts, num_experts);
  if (experts.device().dry()) {
    routes->sorted.counts =
        Evenly(MostRows(experts, num_experts, most_of_expert), num_experts);
  }
  const int64_t rows = routes->sorted.rows();
  routes->routes = routes->sorted.routes.Slice(0, rows);
  routes->tokens = routes->sorted.tokens.Slice(0, rows);
  if (context.parallel.grid().size(Axis::kExpert) > 1) {
    routes->group = &context.parallel.communicators().ExpertGroup();
    routes->Exchange(experts, num_experts, most_of_expert);
  } else {
    routes->counts = routes->sorted.counts;
  }
  routes_ = std::move(routes);
}

const std::vector<int64_t>& Dispatch::counts() const { return routes_->counts; }

Variable Dispatch::ToExperts(Tape& tape, const Variable& x) const {
  const auto compute = [x = x.value(), routes = routes_] {
    return routes->Send(GatherRows(x, routes->tokens));
  };
  Variable rows = tape.Record(
      "rows to experts", {x}, {}, compute(), {},
      [routes = routes_](Tape::Gradients& gradients) {
        gradients.Accumulate(0, SumRows(routes->Return(gradients.TakeOutput()),
                                        routes->sorted.places));
      });
  if (routes_->group == nullptr) rows.set_recipe(compute);
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
        gradients.Accumulate(0, routes->Send(GatherRows(gradients.TakeOutput(),
                                                        routes->tokens)));
      });
}

}  // namespace trireme
