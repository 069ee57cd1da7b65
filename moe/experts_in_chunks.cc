#include "moe/experts_in_chunks.h"

#include <utility>

#include "moe/expert_linear.h"
#include "moe/route_functions.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/grouped_matmul.h"
#include "runtime/ops/routing.h"

namespace trireme {
namespace {

using ExpertKind = MoeConfig::ExpertKind;

Tensor Room(const Tensor& like, int64_t rows, const std::string& name) {
  return Tensor::Empty(like.device(), {rows, like.dim(1)}, like.dtype(),
                       MemoryCategory::kCommunication, name);
}

// The sender's rows, chunk by chunk, all on their way to the experts.
std::vector<ExchangedRows> SendAll(const RowChunks& rows, const Tensor& sent,
                                   const std::string& what) {
  std::vector<ExchangedRows> travelling;
  int64_t begin = 0;
  for (const RowChunks::Chunk& chunk : rows.chunks) {
    travelling.push_back(
        StartExchange(*rows.communicators, chunk.counts, rows.by_nodes,
                      sent.Slice(begin, begin + chunk.sent),
                      Room(sent, chunk.capacity, rows.name), rows.name + what));
    begin += chunk.sent;
  }
  return travelling;
}

// A chunk's rows, expert by expert.
Tensor Arrived(ExchangedRows& travelling, const RowChunks::Chunk& chunk) {
  return GatherRows(travelling.Wait(), chunk.by_expert);
}

// The way back, chunk by chunk, to the sender's order.
class WayBack {
 public:
  WayBack(const RowChunks& rows, std::string what)
      : rows_(rows), what_(std::move(what)) {}

  void Start(const RowChunks::Chunk& chunk, const Tensor& rows) {
    if (!returned_.defined()) returned_ = Room(rows, rows_.sent(), rows_.name);
    const int64_t end = begin_ + chunk.sent;
    travelling_.push_back(
        StartExchange(*rows_.communicators, chunk.counts.Transposed(),
                      rows_.by_nodes, GatherRows(rows, chunk.by_rank),
                      returned_.Slice(begin_, end), rows_.name + what_));
    begin_ = end;
  }
  // Rows of which some are still on their way.
  const Tensor& returned() const { return returned_; }
  std::vector<ExchangedRows> TakeTravelling() { return std::move(travelling_); }

 private:
  const RowChunks& rows_;
  const std::string what_;
  Tensor returned_;
  std::vector<ExchangedRows> travelling_;
  int64_t begin_ = 0;
};

void WaitForAll(std::vector<ExchangedRows>& travelling) {
  for (ExchangedRows& rows : travelling) rows.Wait();
  travelling.clear();
}

// Rows of all chunks, expert by expert.
Tensor Together(const RowChunks& rows, const std::vector<Tensor>& of_chunks) {
  int64_t count = 0;
  for (const Tensor& chunk : of_chunks) count += chunk.dim(0);
  const Tensor all = Room(of_chunks.front(), count, rows.name);
  int64_t begin = 0;
  for (const Tensor& chunk : of_chunks) {
    all.Slice(begin, begin + chunk.dim(0)).CopyFrom(chunk);
    begin += chunk.dim(0);
  }
  return GatherRows(all, rows.together);
}

Tensor Product(const RowChunks::Chunk& chunk, const RowChunks& rows,
               const Tensor& x, const Parameter& weight, bool transpose) {
  return GroupedMatMul(x, ExpertWeights(weight, *rows.rows), chunk.of_experts,
                       transpose);
}

// What backward reads of each chunk.
struct Kept {
  enum { kRows, kInner, kWeights, kActive, kNumLists };

  std::vector<Tensor> lists[kNumLists];

  explicit Kept(size_t chunks) {
    for (std::vector<Tensor>& list : lists) list.resize(chunks);
  }
  std::vector<Tensor> All() const {
    std::vector<Tensor> all;
    for (const std::vector<Tensor>& list : lists) {
      all.insert(all.end(), list.begin(), list.end());
    }
    return all;
  }
  static Tensor Of(const Tape::Gradients& gradients, int list, size_t chunk,
                   size_t chunks) {
    return gradients.Saved(static_cast<int>(list * chunks + chunk));
  }
};

}  // namespace

ExpertsInChunks::ExpertsInChunks(Tape& tape,
                                 std::shared_ptr<const RowChunks> rows,
                                 const Variable& x, const Variable& weights)
    : rows_(std::move(rows)) {
  const Shape shape = weights.value().shape();
  const int64_t routes = shape.num_elements();
  sent_weights_ = tape.Record(
      "weights in chunks", {weights}, {},
      GatherRows(weights.value().Reshape({routes, 1}), rows_->routes), {},
      [rows = rows_, returning = returning_, shape,
       routes](Tape::Gradients& gradients) {
        WaitForAll(returning->weights);
        gradients.Accumulate(0, SumRows(gradients.TakeOutput(),
                                        rows->places.Reshape({routes, 1}))
                                    .Reshape(shape));
      });
  sent_ = tape.Record(
      "rows in chunks", {x}, {}, GatherRows(x.value(), rows_->tokens), {},
      [rows = rows_, returning = returning_](Tape::Gradients& gradients) {
        WaitForAll(returning->rows);
        gradients.Accumulate(0, SumRows(gradients.TakeOutput(), rows->places));
      });
  arriving_weights_ =
      SendAll(*rows_, sent_weights_.value(), " weights of chunks");
  arriving_ = SendAll(*rows_, sent_.value(), " chunks");
}

Variable ExpertsInChunks::Finish(Tape& tape, ExpertKind kind, Parameter& in,
                                 Parameter& out, Keep keep) {
  const size_t n = rows_->chunks.size();
  Kept kept(n);
  WayBack results(*rows_, " results of chunks");
  for (size_t c = 0; c < n; ++c) {
    const RowChunks::Chunk& chunk = rows_->chunks[c];
    const Tensor weights = Arrived(arriving_weights_[c], chunk);
    const Tensor rows = Arrived(arriving_[c], chunk);
    const Tensor inner = Product(chunk, *rows_, rows, in, /*transpose=*/true);
    const Tensor active = ScaleRows(Activated(kind, inner), weights);
    results.Start(chunk, Product(chunk, *rows_, active, out,
                                 /*transpose=*/true));
    if (!tape.recording()) continue;
    kept.lists[Kept::kRows][c] = rows;
    kept.lists[Kept::kInner][c] = inner;
    kept.lists[Kept::kWeights][c] = weights;
    if (keep == Keep::kValue) kept.lists[Kept::kActive][c] = active;
  }
  std::vector<ExchangedRows> travelling = results.TakeTravelling();
  WaitForAll(travelling);
  const Variable returned = tape.Record(
      "experts in chunks", {sent_, sent_weights_}, {&in, &out},
      results.returned(), kept.All(),
      [rows = rows_, returning = returning_, kind, n, &in,
       &out](Tape::Gradients& gradients) {
        std::vector<ExchangedRows> arriving =
            SendAll(*rows, gradients.TakeOutput(), " gradients of chunks");
        WayBack of_rows(*rows, " returned gradients of chunks");
        WayBack of_weights(*rows, " returned weights' gradients of chunks");
        std::vector<Tensor> inputs, actives, slopes, inner_slopes;
        for (size_t c = 0; c < n; ++c) {
          const RowChunks::Chunk& chunk = rows->chunks[c];
          const auto saved = [&](int list) {
            return Kept::Of(gradients, list, c, n);
          };
          const Tensor inner = saved(Kept::kInner);
          const Tensor weights = saved(Kept::kWeights);
          slopes.push_back(Arrived(arriving[c], chunk));
          const Tensor slope =
              Product(chunk, *rows, slopes.back(), out, /*transpose=*/false);
          Tensor active = saved(Kept::kActive);
          if (gradients.Needs(1) || !active.defined()) {
            const Tensor plain = Activated(kind, inner);
            if (gradients.Needs(1)) {
              of_weights.Start(chunk, RowDots(slope, plain));
            }
            if (!active.defined()) active = ScaleRows(plain, weights);
          }
          inner_slopes.push_back(
              ActivationSlope(kind, inner, ScaleRows(slope, weights)));
          if (gradients.Needs(0)) {
            of_rows.Start(chunk, Product(chunk, *rows, inner_slopes.back(), in,
                                         /*transpose=*/false));
          }
          inputs.push_back(saved(Kept::kRows));
          actives.push_back(std::move(active));
        }
        // The last gradients travel behind those of the weights, and what the
        // caller recorded before Finish.
        gradients.AddWeightGradient(out, [rows, &out, actives, slopes] {
          AddExpertGradient(Together(*rows, actives), Together(*rows, slopes),
                            *rows->rows, out);
        });
        gradients.AddWeightGradient(in, [rows, &in, inputs, inner_slopes] {
          AddExpertGradient(Together(*rows, inputs),
                            Together(*rows, inner_slopes), *rows->rows, in);
        });
        returning->rows = of_rows.TakeTravelling();
        returning->weights = of_weights.TakeTravelling();
        if (gradients.Needs(0)) gradients.Accumulate(0, of_rows.returned());
        if (gradients.Needs(1)) gradients.Accumulate(1, of_weights.returned());
      });
  return tape.Record("rows from chunks", {returned}, {},
                     SumRows(returned.value(), rows_->places), {},
                     [rows = rows_](Tape::Gradients& gradients) {
                       gradients.Accumulate(
                           0, GatherRows(gradients.TakeOutput(), rows->tokens));
                     });
}

}  // namespace trireme
