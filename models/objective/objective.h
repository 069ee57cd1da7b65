// What a model learns from a batch: which inputs it is given, what its outputs
// are compared with, and the losses.
//
// Every random number is keyed by (seed, step, sample), so that a sample is
// treated alike on every grid and after every resume.

#ifndef TRIREME_MODELS_OBJECTIVE_OBJECTIVE_H_
#define TRIREME_MODELS_OBJECTIVE_OBJECTIVE_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "models/batch.h"
#include "models/input_gradients.h"
#include "parallel/grid/context.h"
#include "runtime/device/tensor.h"

namespace trireme {

// What a model is given of the samples that it learns to make, and what it is
// to predict.
struct ModelInputs {
  Tensor x;      // of the field's shape, in the model's type
  Tensor times;  // [n], fp32 (fp64 for fp64)
  // As x, or what else the objective compares pictures of as many pixels with;
  // undefined where nothing is learnt.
  Tensor target;
};

// The name of an objective's own loss (AddLoss).
inline constexpr char kObjectiveLoss[] = "loss";
// The name of the counts (Tape::Report) of samples that are named wrongly and
// rightly, of a model that names their classes.
inline constexpr char kHitCounts[] = "hits";

struct NoiseSchedule;  // noise_schedule.h
class KeyValueCache;   // models/transformer/key_value_cache.h

class Objective {
 public:
  virtual ~Objective() = default;

  // From the samples in `field` (fp32) of the microbatch. `dtype`: the model's.
  virtual ModelInputs Prepare(const Batch& microbatch, std::string_view field,
                              DType dtype) const = 0;

  // The times alone, for blocks that embed them themselves; undefined where
  // there are none. `dtype`: the model's.
  virtual Tensor Times(const Batch& /*microbatch*/, Device& /*device*/,
                       DType /*dtype*/) const {
    return Tensor();
  }

  // The time of each sample, from 0 to 1 (all noise), where there are times.
  virtual std::vector<double> SampleTimes(const Batch& /*microbatch*/) const {
    return {};
  }
  // Where routes to experts are counted by kinds of samples, those of the
  // samples (MoeTokens::kinds).
  virtual std::vector<int32_t> RouteKinds(const Batch& /*microbatch*/) const {
    return {};
  }

  // The condition in `field` (int32 [n]), with `none` for the samples that are
  // trained without their conditions. A sample loses all of them or none.
  virtual Tensor Condition(const Batch& microbatch, std::string_view field,
                           int32_t none) const = 0;

  // Samples of a step over the whole job, over which losses are means; 0:
  // nothing is learnt, and no block adds a loss.
  virtual int64_t global_batch() const = 0;
  // The field (int32 [n]) whose sum over a step's samples losses are means over
  // (Batch::counted), where samples have unlike numbers of what is learnt;
  // empty: they have alike.
  virtual std::string_view counted_field() const { return {}; }
  // Its sum over those of the batch's samples that count.
  virtual double Counted(const Batch& batch) const {
    return counted_field().empty() ? 0 : SumOf(batch, counted_field());
  }
  // Of sequences that are drawn token by token: what blocks keep of the tokens
  // before the one that the batch holds; null: batches hold whole sequences.
  virtual KeyValueCache* key_value_cache() const { return nullptr; }
  // Where the gradients of the model's inputs go; null: nobody asks for them.
  virtual InputGradients* input_gradients() const { return nullptr; }

  // Adds the losses of a microbatch's prediction to the step's, as parts of a
  // mean over the whole job's batch (AddLoss). `target` is laid out as this
  // rank's part of the prediction is; a sample has `elements` of them over all
  // ranks.
  virtual void AddLosses(ForwardContext& context, const Batch& microbatch,
                         const ShardedVariable& prediction,
                         const Tensor& target, int64_t elements) const = 0;

  // Whether what the model predicts are the samples without their noise
  // (SamplerOptions::predicts_clean).
  virtual bool predicts_clean() const { return false; }
  // The discrete schedule of noise that models learn on; null: a flow.
  virtual const NoiseSchedule* noise_schedule() const { return nullptr; }
};

}  // namespace trireme

#endif  // TRIREME_MODELS_OBJECTIVE_OBJECTIVE_H_
