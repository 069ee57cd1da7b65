// AdamW on one rank's parameters: master weights and moments in fp32 (fp64 in
// fp64 runs), the global gradient norm, clipping, and the moving average of
// the weights. It runs where the gradient lies, or on the ParameterHome's
// master device; where that is another than the values', an update brings the
// gradient there and the new value back. Between updates masters and moments of
// what has its home in the host's memory, and the values themselves, may lie on
// a drive (state_streamer.h).

#ifndef TRIREME_PARALLEL_OPTIMIZER_OPTIMIZER_H_
#define TRIREME_PARALLEL_OPTIMIZER_OPTIMIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/grid/context.h"
#include "parallel/optimizer/owned_parameter.h"
#include "parallel/optimizer/state_streamer.h"
#include "parallel/sharding/unit_store.h"

namespace trireme {

// Parameters that train otherwise, by their names.
struct ParameterGroup {
  std::string match;  // a pattern (name_pattern.h)
  double learning_rate_scale = 1;
  // Of all that match; absent: the optimizer's, on parameters with
  // Parameter::decay.
  std::optional<double> weight_decay;
};

struct OptimizerOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  // On parameters with Parameter::decay.
  double weight_decay = 0.0;
  // Of the global norm; 0 = no clipping.
  double clip_norm = 1.0;
  // Moving average min(ema_decay, (1+n)/(10+n)) after n steps; 0 = none.
  double ema_decay = 0.0;
  // Of those that match a parameter the first counts.
  std::vector<ParameterGroup> groups;
};

class Optimizer {
 public:
  // `owned`: by bucket, of every chunk of the rank one after the other; entries
  // with empty ranges are left out. `seed`: of the initial values. `drive`:
  // where the states of what has its gradients elsewhere than on the context's
  // device lie between updates; null: beside the values. `stored`: with a
  // drive, who keeps the values, by bucket as `owned`.
  Optimizer(ParallelContext& context, const OptimizerOptions& options,
            uint64_t seed, std::vector<std::vector<OwnedParameter>> owned,
            Device* drive = nullptr,
            const std::vector<StoredBucket>& stored = {});

  // In which a step's gradients update buckets: those on a drive come ahead of
  // it.
  void set_update_order(const std::vector<int>& buckets);
  // One step's updates are over: the first buckets of the next one's come from
  // the drive from now on.
  void ExpectUpdates();
  // Masters, moments and averages of owned() may be used, until the next step.
  void Settle();
  // Null: all states are in memory.
  const StateStreamer* streamer() const { return streamer_.get(); }

  // The norm of the whole model's gradient, each logical element once:
  // parameters that are not sharded over an axis count on that axis's first
  // rank. A collective over the ranks of the model's shards. Sets the factor
  // that Update applies: min(1, clip_norm/(norm + 1e-6)). Call when all
  // gradients are reduced. `loss_scale`: the factor that is in all gradients;
  // the norm is that without it. If the norm is not finite, Update changes
  // nothing until the next call: the weights stay what they were.
  double ClipGradients(double loss_scale = 1);

  // Update changes nothing until the next ClipGradients.
  void LeaveOut() { skip_ = true; }

  // One step on a bucket, by its position in `owned`; `step` counts from 1.
  void Update(int bucket, int64_t step, double learning_rate);

  const std::vector<std::vector<OwnedParameter>>& owned() const {
    return owned_;
  }
  // What all updates so far have read and written of the host's memory:
  // gradients, masters, moments, averages and rounded copies of what has its
  // home there.
  int64_t home_bytes() const { return home_bytes_; }

  // Rewrites the values from the masters (after loading a checkpoint).
  void SyncValues();

  // Puts the averages in the place of the values, and the other way about:
  // twice is as if nothing had been. There must be averages; between steps.
  void ExchangeAverages();

 private:
  // What the groups say.
  void SetRates(OwnedParameter& part) const;
  // Masters, moments and the average, beside the value.
  void MakeState(OwnedParameter& part) const;
  // Their first elements.
  void InitializeState(const OwnedParameter& part, uint64_t seed) const;
  // A bucket's parts, with states in memory until Return.
  std::vector<OwnedParameter>& Bring(int bucket, bool read = true);
  void Return(int bucket, bool states_changed, bool values_changed);

  ParallelContext& context_;
  OptimizerOptions options_;
  std::vector<std::vector<OwnedParameter>> owned_;
  std::unique_ptr<StateStreamer> streamer_;
  double gradient_scale_ = 1.0;
  bool skip_ = false;
  bool averages_in_place_ = false;
  int64_t home_bytes_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_OPTIMIZER_OPTIMIZER_H_
