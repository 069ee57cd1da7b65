#include "trainer/health/non_finite.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "runtime/core/status.h"
#include "runtime/ops/reduction.h"

namespace trireme {
namespace {

// In the order of the computation.
enum Phase { kWeights, kForward, kLosses, kBackward, kWeightGradients, kNone };

struct Finding {
  int64_t phase = kNone;
  // Of the phase: the unit's place, counted from where the phase begins.
  int64_t place = 0;
  int64_t microbatch = 0;
  std::string what;

  bool Before(const Finding& other) const {
    return std::tuple(phase, place, microbatch) <
           std::tuple(other.phase, other.place, other.microbatch);
  }
};

bool IsFinite(const Tensor& tensor) {
  if (!tensor.defined() || tensor.num_elements() == 0) return true;
  switch (tensor.dtype()) {
    case DType::kInt32:
    case DType::kInt64:
    case DType::kBool:
    case DType::kUint8:
      return true;
    default:
      return AllFinite(tensor);
  }
}

std::string UnitName(int64_t position, int64_t layers) {
  if (position == 0) return "the embedding";
  return position > layers ? "the head" : fmt::format("block {}", position - 1);
}

// What one rank sees.
class Search {
 public:
  explicit Search(RankModel& model)
      : model_(model), layers_(model.setup().family->Shape().layers) {}

  void LookAtParts(Phase phase, const char* what,
                   const std::vector<TensorPart>& parts) {
    for (size_t i = 0; i < parts.size(); ++i) {
      if (IsFinite(parts[i].local)) continue;
      return Note({.phase = phase,
                   .place = static_cast<int64_t>(i),
                   .what = fmt::format("{} '{}'", what, parts[i].name)});
    }
  }

  void LookAt(const UnitResult& result) {
    const int64_t position = model_.UnitPosition(result.chunk, result.unit);
    const std::string unit = UnitName(position, layers_);
    const bool finite =
        std::all_of(result.tensors.begin(), result.tensors.end(), IsFinite);
    if (!finite && result.backward) {
      Note({.phase = kBackward,
            .place = layers_ + 1 - position,
            .microbatch = result.microbatch,
            .what = fmt::format("the gradient of {}'s input, in backward of "
                                "microbatch {}",
                                unit, result.microbatch)});
    } else if (!finite) {
      Note({.phase = kForward,
            .place = position,
            .microbatch = result.microbatch,
            .what = fmt::format("the output of {}, in forward of microbatch {}",
                                unit, result.microbatch)});
    }
    for (const Tape::Loss& loss : result.losses) {
      if (IsFinite(loss.value)) continue;
      Note({.phase = kLosses,
            .place = position,
            .microbatch = result.microbatch,
            .what = fmt::format("{}'s '{}', in forward of microbatch {}", unit,
                                loss.name, result.microbatch)});
    }
  }

  const Finding& first() const { return first_; }

 private:
  void Note(Finding finding) {
    if (finding.Before(first_)) first_ = std::move(finding);
  }

  RankModel& model_;
  const int64_t layers_;
  Finding first_;
};

// "PHASE PLACE MICROBATCH WHAT".
Finding Parse(const std::string& text) {
  const std::vector<std::string> parts =
      absl::StrSplit(text, absl::MaxSplits(' ', 3));
  Finding finding;
  CHECK(parts.size() == 4 && absl::SimpleAtoi(parts[0], &finding.phase) &&
        absl::SimpleAtoi(parts[1], &finding.place) &&
        absl::SimpleAtoi(parts[2], &finding.microbatch))
      << text;
  finding.what = parts[3];
  return finding;
}

// Of all ranks, where each gradient is finite and only their sum is not.
std::string LargestGradient(RankModel& model) {
  double own = 0;
  std::string name;
  for (const TensorPart& part : model.GradientParts()) {
    if (part.local.num_elements() == 0) continue;
    const double largest = MaxAbs(part.local);
    if (largest > own) {
      own = largest;
      name = part.name;
    }
  }
  double most = -1;
  std::string text;
  size_t rank = 0;
  for (const std::string& told :
       model.context().communicators().control().AllGather(
           fmt::format("{} {}", own, name), "the largest gradient")) {
    const std::vector<std::string> parts =
        absl::StrSplit(told, absl::MaxSplits(' ', 1));
    double largest = 0;
    CHECK(absl::SimpleAtod(parts[0], &largest)) << told;
    if (largest > most) {
      most = largest;
      text = fmt::format(
          "every gradient is finite, but their squares are not: the largest is "
          "{:.3g}, of '{}' on rank {}",
          largest, parts[1], rank);
    }
    ++rank;
  }
  return text;
}

}  // namespace

absl::StatusOr<std::string> FindNonFinite(RankModel& model, const Batch& batch,
                                          const StepOptions& options) {
  Search search(model);
  search.LookAtParts(kWeights, "the weight", model.ValueParts());
  StepOptions again = options;
  again.update = false;
  again.admits = nullptr;
  again.trace = nullptr;
  again.observer = [&](const UnitResult& result) { search.LookAt(result); };
  const LossScalerState scaler = model.loss_scaler().state();
  ASSIGN_OR_RETURN(const GlobalStepResult result, model.Step(batch, again));
  model.loss_scaler().set_state(scaler);
  search.LookAtParts(kWeightGradients, "the gradient of",
                     model.GradientParts());
  const Finding& own = search.first();
  Finding first;
  size_t rank_of_first = 0, rank = 0;
  for (const std::string& text :
       model.context().communicators().control().AllGather(
           fmt::format("{} {} {} {}", own.phase, own.place, own.microbatch,
                       own.what),
           "what is not finite")) {
    Finding finding = Parse(text);
    if (finding.Before(first)) {
      first = std::move(finding);
      rank_of_first = rank;
    }
    ++rank;
  }
  if (first.phase == kNone) {
    if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm)) {
      return LargestGradient(model);
    }
    return fmt::format(
        "computed once more, all is finite: arithmetic, memory or a link "
        "failed the first time");
  }
  return fmt::format("the first that is not finite: {} on rank {}", first.what,
                     rank_of_first);
}

}  // namespace trireme
