#include "moe/experts_in_chunks.h"

#include <span>
#include <string>
#include <utility>

#include "moe/expert_linear.h"
#include "moe/expert_slices.h"
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

// Of the sender's rows those that stay.
Tensor Staying(const RowChunks& rows, const Tensor& sent) {
  return sent.Slice(rows.going(), rows.all());
}

// The way back, chunk by chunk, to the sender's order.
class WayBack {
 public:
  WayBack(const RowChunks& rows, std::string what)
      : rows_(rows), what_(std::move(what)) {}

  void Start(const RowChunks::Chunk& chunk, const Tensor& rows) {
    MakeRoom(rows);
    const int64_t end = begin_ + chunk.sent;
    travelling_.push_back(StartExchange(
        *rows_.communicators, chunk.counts.Transposed(), rows_.by_nodes,
        GatherRows(SumSlices(rows, rows_.slices.gathered()), chunk.by_rank),
        returned_.Slice(begin_, end), rows_.name + what_));
    begin_ = end;
  }
  // Of rows that stayed.
  void Put(const Tensor& rows) {
    MakeRoom(rows);
    Staying(rows_, returned_).CopyFrom(rows);
  }
  // Rows of which some are still on their way.
  const Tensor& returned() const { return returned_; }
  std::vector<ExchangedRows> TakeTravelling() { return std::move(travelling_); }

 private:
  void MakeRoom(const Tensor& like) {
    if (!returned_.defined()) returned_ = Room(like, rows_.all(), rows_.name);
  }

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
Tensor Together(const RowChunks& rows, std::span<const Tensor> of_chunks) {
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

// Rows of one chunk, or of the shadowed experts, and their weights.
struct Part {
  std::span<const int64_t> counts;
  Tensor in, in_bias, out;  // the bias may be undefined
};

// Of no weight, or of no experts, none.
std::optional<ShadowedWeights> Shadow(const RowChunks& rows,
                                      const Parameter* weight) {
  if (weight == nullptr || rows.shadowed.experts.empty()) return std::nullopt;
  return std::make_optional<ShadowedWeights>(rows.communicators->ExpertGroup(),
                                             rows.shadowed, *weight, rows.name);
}

Tensor Arrived(std::optional<ShadowedWeights>& weights) {
  return weights.has_value() ? weights->Wait() : Tensor();
}

Tensor BiasOf(const Parameter* bias, const RowChunks& rows) {
  return bias == nullptr ? Tensor() : ExpertWeights(*bias, *rows.rows);
}

// What backward reads of a part.
struct Kept {
  Tensor rows, inner, weights;
  Tensor active;  // undefined: made again

  static constexpr int kTensors = 4;
  static Kept Of(const Tape::Gradients& gradients, size_t part) {
    const auto saved = [&](int i) {
      return gradients.Saved(static_cast<int>(part) * kTensors + i);
    };
    return {saved(0), saved(1), saved(2), saved(3)};
  }
};

// Through a part's experts.
Tensor Forward(const Part& part, ExpertKind kind, Keep keep, Kept& kept) {
  kept.inner = GroupedMatMul(kept.rows, part.in, part.counts,
                             /*transpose=*/true,
                             part.in_bias.defined() ? &part.in_bias : nullptr);
  const Tensor active = ScaleRows(Activated(kind, kept.inner), kept.weights);
  if (keep == Keep::kValue) kept.active = active;
  return GroupedMatMul(active, part.out, part.counts, /*transpose=*/true);
}

// What the gradients of a part's weights are made of.
struct Slopes {
  std::vector<Tensor> inputs, inner, active, results;

  void Append(const Slopes& other) {
    for (const auto list :
         {&Slopes::inputs, &Slopes::inner, &Slopes::active, &Slopes::results}) {
      (this->*list)
          .insert((this->*list).end(), (other.*list).begin(),
                  (other.*list).end());
    }
  }
};

struct InputGradients {
  Tensor rows, weights;  // undefined where nobody needs them
};

InputGradients Backward(const Tape::Gradients& gradients, const Part& part,
                        ExpertKind kind, const Kept& kept, const Tensor& slope,
                        Slopes& slopes) {
  InputGradients of_inputs;
  const Tensor of_active =
      GroupedMatMul(slope, part.out, part.counts, /*transpose=*/false);
  Tensor active = kept.active;
  if (gradients.Needs(1) || !active.defined()) {
    const Tensor plain = Activated(kind, kept.inner);
    if (gradients.Needs(1)) of_inputs.weights = RowDots(of_active, plain);
    if (!active.defined()) active = ScaleRows(plain, kept.weights);
  }
  const Tensor of_inner =
      ActivationSlope(kind, kept.inner, ScaleRows(of_active, kept.weights));
  if (gradients.Needs(0)) {
    of_inputs.rows =
        GroupedMatMul(of_inner, part.in, part.counts, /*transpose=*/false);
  }
  slopes.inputs.push_back(kept.rows);
  slopes.inner.push_back(of_inner);
  slopes.active.push_back(std::move(active));
  slopes.results.push_back(slope);
  return of_inputs;
}

// `x` and `dy` of all chunks, and behind them of the shadowed experts.
void AddGradient(const RowChunks& rows, const std::vector<Tensor>& x,
                 const std::vector<Tensor>& dy, Parameter& weight) {
  const auto chunks = [&](const std::vector<Tensor>& parts) {
    return std::span(parts).first(rows.chunks.size());
  };
  AddExpertGradient(Together(rows, chunks(x)), Together(rows, chunks(dy)),
                    *rows.rows, weight);
  if (rows.shadowed.experts.empty()) return;
  AddShadowedGradient(rows.communicators->ExpertGroup(), rows.shadowed,
                      x.back(), dy.back(), weight, rows.name);
}

void AddBiasGradient(const RowChunks& rows, const std::vector<Tensor>& dy,
                     Parameter& bias) {
  std::vector<Tensor> x;
  x.reserve(dy.size());
  for (const Tensor& part : dy) x.push_back(BiasInput(part));
  AddGradient(rows, x, dy, bias);
}

}  // namespace

ExpertsInChunks::ExpertsInChunks(Tape& tape,
                                 std::shared_ptr<const RowChunks> rows,
                                 const Variable& x, const Variable& weights,
                                 Parameter& in, Parameter* in_bias,
                                 Parameter& out)
    : rows_(std::move(rows)),
      in_(in),
      in_bias_(in_bias),
      out_(out),
      shadowed_in_(Shadow(*rows_, &in)),
      shadowed_bias_(Shadow(*rows_, in_bias)),
      shadowed_out_(Shadow(*rows_, &out)) {
  const Shape shape = weights.value().shape();
  const int64_t routes = shape.num_elements();
  sent_weights_ = tape.Record(
      "weights in chunks", {weights}, {},
      rows_->Copies(
          GatherRows(weights.value().Reshape({routes, 1}), rows_->routes)),
      {},
      [rows = rows_, returning = returning_, shape,
       routes](Tape::Gradients& gradients) {
        WaitForAll(returning->weights);
        gradients.Accumulate(0, SumRows(rows->Sums(gradients.TakeOutput()),
                                        rows->places.Reshape({routes, 1}))
                                    .Reshape(shape));
      });
  sent_ = tape.Record(
      "rows in chunks", {x}, {},
      rows_->Copies(GatherRows(x.value(), rows_->tokens)), {},
      [rows = rows_, returning = returning_](Tape::Gradients& gradients) {
        WaitForAll(returning->rows);
        gradients.Accumulate(
            0, SumRows(rows->Sums(gradients.TakeOutput()), rows->places));
      });
  arriving_weights_ =
      SendAll(*rows_, sent_weights_.value(), " weights of chunks");
  arriving_ = SendAll(*rows_, sent_.value(), " chunks");
}

Variable ExpertsInChunks::Finish(Tape& tape, ExpertKind kind, Keep keep) {
  WayBack results(*rows_, " results of chunks");
  std::vector<Tensor> saved;
  const auto save = [&](const Kept& kept) {
    if (!tape.recording()) return;
    saved.insert(saved.end(),
                 {kept.rows, kept.inner, kept.weights, kept.active});
  };
  // Saved behind the chunks'.
  Kept staying;
  if (shadowed_in_.has_value()) {
    staying.rows = Staying(*rows_, sent_.value()).Clone();
    staying.weights = Staying(*rows_, sent_weights_.value());
    results.Put(Forward({rows_->shadowed.counts, Arrived(shadowed_in_),
                         Arrived(shadowed_bias_), Arrived(shadowed_out_)},
                        kind, keep, staying));
  }
  const Tensor in = ExpertWeights(in_, *rows_->rows);
  const Tensor in_bias = BiasOf(in_bias_, *rows_);
  const Tensor out = ExpertWeights(out_, *rows_->rows);
  for (size_t c = 0; c < rows_->chunks.size(); ++c) {
    const RowChunks::Chunk& chunk = rows_->chunks[c];
    Kept kept;
    kept.weights = Arrived(arriving_weights_[c], chunk);
    kept.rows = Arrived(arriving_[c], chunk);
    results.Start(
        chunk, Forward({chunk.of_experts, in, in_bias, out}, kind, keep, kept));
    save(kept);
  }
  if (shadowed_in_.has_value()) save(staying);
  std::vector<ExchangedRows> travelling = results.TakeTravelling();
  WaitForAll(travelling);
  std::vector<Parameter*> parameters = {&in_, &out_};
  if (in_bias_ != nullptr) parameters.push_back(in_bias_);
  const Variable returned = tape.Record(
      "experts in chunks", {sent_, sent_weights_}, parameters,
      results.returned(), std::move(saved),
      [rows = rows_, returning = returning_, kind, &in = in_,
       in_bias = in_bias_, &out = out_](Tape::Gradients& gradients) {
        const Tensor slope = gradients.TakeOutput();
        std::optional<ShadowedWeights> shadowed_out = Shadow(*rows, &out);
        std::optional<ShadowedWeights> shadowed_in = Shadow(*rows, &in);
        std::vector<ExchangedRows> arriving =
            SendAll(*rows, slope, " gradients of chunks");
        WayBack of_rows(*rows, " returned gradients of chunks");
        WayBack of_weights(*rows, " returned weights' gradients of chunks");
        Slopes slopes;
        Slopes of_shadowed;
        const size_t n = rows->chunks.size();
        const Tensor in_weights = ExpertWeights(in, *rows->rows);
        const Tensor out_weights = ExpertWeights(out, *rows->rows);
        if (shadowed_in.has_value()) {
          const InputGradients found = Backward(
              gradients,
              {rows->shadowed.counts, Arrived(shadowed_in), Tensor(),
               Arrived(shadowed_out)},
              kind, Kept::Of(gradients, n), Staying(*rows, slope), of_shadowed);
          if (gradients.Needs(1)) of_weights.Put(found.weights);
          if (gradients.Needs(0)) of_rows.Put(found.rows);
        }
        for (size_t c = 0; c < n; ++c) {
          const RowChunks::Chunk& chunk = rows->chunks[c];
          const InputGradients found = Backward(
              gradients, {chunk.of_experts, in_weights, Tensor(), out_weights},
              kind, Kept::Of(gradients, c), Arrived(arriving[c], chunk),
              slopes);
          if (gradients.Needs(1)) of_weights.Start(chunk, found.weights);
          if (gradients.Needs(0)) of_rows.Start(chunk, found.rows);
        }
        slopes.Append(of_shadowed);
        // The last gradients travel behind those of the weights, and what the
        // caller recorded before Finish.
        gradients.AddWeightGradient(
            out, [rows, &out, x = slopes.active, dy = slopes.results] {
              AddGradient(*rows, x, dy, out);
            });
        gradients.AddWeightGradient(
            in, [rows, &in, x = slopes.inputs, dy = slopes.inner] {
              AddGradient(*rows, x, dy, in);
            });
        if (in_bias != nullptr) {
          gradients.AddWeightGradient(*in_bias,
                                      [rows, in_bias, dy = slopes.inner] {
                                        AddBiasGradient(*rows, dy, *in_bias);
                                      });
        }
        returning->rows = of_rows.TakeTravelling();
        returning->weights = of_weights.TakeTravelling();
        if (gradients.Needs(0)) gradients.Accumulate(0, of_rows.returned());
        if (gradients.Needs(1)) gradients.Accumulate(1, of_weights.returned());
      });
  return tape.Record(
      "rows from chunks", {returned}, {},
      SumRows(rows_->Sums(returned.value()), rows_->places), {},
      [rows = rows_](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, rows->Copies(GatherRows(gradients.TakeOutput(), rows->tokens)));
      });
}

}  // namespace trireme
