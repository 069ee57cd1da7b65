// Delayed scaling of products in FP8 (Micikevicius et al., "FP8 formats for
// deep learning", section 3.2, and the recipe of that name of NVIDIA's
// Transformer Engine): an operand of a layer has one scale, the largest that
// any of the last steps needed, so that it is rounded in the pass that reads it
// and a product may sum over tokens.
//
// What a step needed is the largest over all its microbatches and all ranks: a
// reduction of a few numbers a layer at its end, exact in any order. Histories
// are therefore the same on every grid, and all ranks have those of all layers.

#ifndef TRIREME_PARALLEL_PARAMETERS_DELAYED_SCALING_H_
#define TRIREME_PARALLEL_PARAMETERS_DELAYED_SCALING_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "parallel/parameters/float8_layers.h"
#include "runtime/autograd/float8_delay.h"
#include "runtime/autograd/parameter.h"
#include "runtime/comm/control.h"
#include "runtime/device/device.h"

namespace trireme {

// The largest exponent of the last steps of a window: of them those are kept
// than which none that came later is as large.
class ExponentWindow {
 public:
  struct Entry {
    int exponent = 0;
    int64_t steps_left = 0;  // for which it counts

    bool operator==(const Entry&) const = default;
  };

  ExponentWindow() = default;
  // Of entries that IsWindow, in a window of `steps` from now on.
  ExponentWindow(std::vector<Entry> entries, int64_t steps);
  // Whether exponents fall and the steps that they count for do not, both
  // within what a scale, and a job, may have.
  static bool IsWindow(const std::vector<Entry>& entries);

  void Push(int exponent, int64_t steps);
  // None before the first Push.
  std::optional<int> largest() const;
  const std::vector<Entry>& entries() const { return entries_; }

  bool operator==(const ExponentWindow&) const = default;

 private:
  std::vector<Entry> entries_;
};

// What a checkpoint keeps: by the names of the layers' weights, of each operand
// (Float8Operand).
using Float8Histories =
    std::map<std::string, std::array<ExponentWindow, kFloat8Operands>>;

class DelayedScaling {
 public:
  // Gives the parameters of a rank that multiply in FP8 their delay, of which
  // nothing is known yet. `layers` have a history. Parameters and device
  // outlive it.
  DelayedScaling(const Float8Layers& layers, Device& device,
                 const std::vector<Parameter*>& parameters);

  // As amid a run, with scales of 1: for those who measure what a step takes.
  void AssumeHistories();

  // Before anything of a step runs: nothing is needed yet.
  void BeginStep();
  // After all of a step has run: the next one's scales. What nothing came of
  // keeps its history, as does what was zero or not finite. On a dry device
  // there are none, and steps behind the first are as AssumeHistories has them.
  // Collective.
  void EndStep(Control& control);

  const Float8Histories& histories() const { return histories_; }
  // The next step's scales are theirs. Those of other layers are left out at
  // its end.
  void set_histories(Float8Histories histories);

 private:
  // What the histories say.
  void WriteScales();

  Float8Layers layers_;
  Device& device_;
  std::vector<Parameter*> parameters_;  // of this rank
  Tensor scales_, needed_;  // [parameters, kFloat8Operands]; none without any
  Float8Histories histories_;
  // Of all ranks, in one order; known after the first step.
  std::optional<std::vector<std::string>> names_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_PARAMETERS_DELAYED_SCALING_H_
