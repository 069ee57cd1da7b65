// Parity: the same job gives the same losses and gradients on every grid.
//
// A reference run on one rank and a run under a plan train the same steps on
// the same samples; their losses and the gradient of every logical parameter
// are compared after each step. Both update the weights, so that later steps
// (where the zero-initialised paths of a DiT carry gradients too) count.
//
//   error of a parameter = ‖a − b‖₂ / max(‖a‖₂, 10⁻³·‖g‖₂·√(n/N))
//
// a: reference gradient of n elements, g: the whole gradient of N elements.
// The floor keeps parameters whose true gradient vanishes (the bias of k under
// softmax) from being judged by their rounding noise.

#ifndef TRIREME_TRAINER_VERIFICATION_PARITY_H_
#define TRIREME_TRAINER_VERIFICATION_PARITY_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/batch.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/compute_device.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

// The samples [first, first + count) of step `step` (from 1), on `device`.
using BatchSource = std::function<absl::StatusOr<Batch>(
    Device& device, int64_t step, int64_t first, int64_t count)>;

// What one run left behind, on world rank 0.
struct GridRecord {
  struct Gradient {
    std::string name;
    std::vector<double> values;
  };
  struct Step {
    double loss = 0;
    double gradient_norm = 0;
    std::vector<Gradient> gradients;  // by name
  };
  std::vector<Step> steps;
};

// The elements of a floating tensor.
std::vector<double> ToDoubles(const Tensor& tensor);

// Trains `steps` steps under `plan`. What does not train has random values,
// also where a model starts with zeros, behind which nothing has a gradient.
// Collective over the factory's world.
absl::StatusOr<GridRecord> RecordGrid(const TrainingSetup& setup,
                                      const Plan& plan, Device& device,
                                      CommunicatorFactory& factory,
                                      const BatchSource& source, int64_t steps);

struct ThreadRankOptions {
  // Threads that each rank computes with; 0: OpenMP's default. All ranks share
  // the processors. Runs whose bits are compared have the same number: sums of
  // products may be cut at other places with another.
  int threads_per_rank = 0;
  // Of each rank, with so much memory.
  ComputeDevice device;
  int64_t memory_bytes = int64_t{1} << 40;
  // Of each wait for another rank; see RunThreadRanks.
  std::chrono::milliseconds deadline = std::chrono::minutes(10);
};

// The same with the plan's ranks as threads of this process.
absl::StatusOr<GridRecord> RecordGridOnThreads(
    const TrainingSetup& setup, const Plan& plan, const BatchSource& source,
    int64_t steps, const ThreadRankOptions& options = {});

struct ParityRow {
  int64_t step = 0;
  std::string parameter;
  double error = 0;
  double reference_norm = 0;
};

struct ParityReport {
  // Per step.
  std::vector<double> reference_losses;
  std::vector<double> losses;
  double worst_loss_error = 0;  // relative
  double worst_norm_error = 0;  // relative, of the gradient norm
  // The worst first.
  std::vector<ParityRow> rows;
  // Every loss, gradient norm and gradient element is equal bit for bit.
  bool bitwise = false;

  double worst_gradient_error() const {
    return rows.empty() ? 0.0 : rows.front().error;
  }
};

// Errors: runs of different lengths or models.
absl::StatusOr<ParityReport> CompareRecords(const GridRecord& reference,
                                            const GridRecord& record);

// What a grid may change by rounding alone, relative.
struct ParityTolerance {
  double loss = 0;
  double gradient = 0;
};
// 1e-10 in fp64, 1e-5 in fp32. In bf16 and fp16, 1e-3 for losses and 0.3 for
// gradients: Adam turns the rounding noise of near-zero first gradients into
// whole steps, so that later gradients are compared on slightly different
// weights.
ParityTolerance ToleranceOf(DType dtype);
// The same under a plan, whose gradient messages may be rounded to bf16.
ParityTolerance ToleranceOf(DType dtype, const Plan& plan);
// The tolerance and what it cannot show, in whole lines.
std::string ToleranceText(DType dtype);

// True if losses, gradient norms and every gradient are within the tolerance.
bool Within(const ParityReport& report, const ParityTolerance& tolerance);

// A table of the losses and the worst `rows` parameters.
std::string ParityText(const ParityReport& report,
                       const ParityTolerance& tolerance, int rows);

}  // namespace trireme

#endif  // TRIREME_TRAINER_VERIFICATION_PARITY_H_
