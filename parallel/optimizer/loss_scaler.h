// Dynamic loss scaling for fp16 (Micikevicius et al., "Mixed precision
// training", section 3.2): the loss is multiplied by a scale so that small
// gradients do not vanish; where they overflow instead, the step is left out
// and the scale halved; after a long run of good steps it is doubled.

#ifndef TRIREME_PARALLEL_OPTIMIZER_LOSS_SCALER_H_
#define TRIREME_PARALLEL_OPTIMIZER_LOSS_SCALER_H_

#include <cstdint>

namespace trireme {

struct LossScalerOptions {
  bool enabled = false;  // else the scale is 1 for ever
  // 2^16: one more doubling of a loss of order 1 no longer fits into fp16.
  double initial = 65536;
  int64_t growth_interval = 1000;
  // Overflows before the scale is halved.
  int64_t hysteresis = 2;
  double minimum = 1;
};

// What a checkpoint keeps.
struct LossScalerState {
  double scale = 1;
  int64_t clean_steps = 0;
  int64_t hysteresis_left = 0;
  int64_t skipped_steps = 0;

  bool operator==(const LossScalerState&) const = default;
};

class LossScaler {
 public:
  explicit LossScaler(const LossScalerOptions& options)
      : options_(options),
        state_{.scale = options.enabled ? options.initial : 1.0,
               .hysteresis_left = options.hysteresis} {}

  bool enabled() const { return options_.enabled; }
  const LossScalerState& state() const { return state_; }
  void set_state(const LossScalerState& state) { state_ = state; }

  // After a step, with whether its gradients were finite. Every rank calls it
  // with the same, so that all have the same scale.
  void Update(bool finite) {
    if (!options_.enabled) return;
    if (!finite) {
      ++state_.skipped_steps;
      state_.clean_steps = 0;
      if (--state_.hysteresis_left > 0) return;
      state_.hysteresis_left = options_.hysteresis;
      state_.scale = state_.scale / 2 < options_.minimum ? options_.minimum
                                                         : state_.scale / 2;
      return;
    }
    if (++state_.clean_steps < options_.growth_interval) return;
    state_.clean_steps = 0;
    state_.hysteresis_left = options_.hysteresis;
    state_.scale *= 2;
  }

 private:
  LossScalerOptions options_;
  LossScalerState state_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_OPTIMIZER_LOSS_SCALER_H_
