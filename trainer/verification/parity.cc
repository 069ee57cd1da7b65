#include "trainer/verification/parity.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "fmt/format.h"
#include "runtime/comm/host_staged.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/status.h"
#include "runtime/device/host.h"
#include "scheduler/plan/stage_ranks.h"
#include "trainer/job/memory_limit.h"
#include "trainer/preflight/check_device.h"
#include "trainer/rank/rank_model.h"

namespace trireme {
namespace {

constexpr double kFloor = 1e-3;

// Gradients rounded to bf16 on their way.
constexpr ParityTolerance kBf16Messages = {1e-3, 0.1};

double Norm(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return std::sqrt(sum);
}

double Distance(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

absl::Status FillRandomly(RankModel& model, uint64_t seed) {
  RETURN_IF_ERROR(model.FillFrozen([seed](Parameter& parameter) {
    parameter.initializer = {.kind = Initializer::Kind::kNormal,
                             .stddev = 0.15};
    InitializeParameter(seed, parameter);
    return absl::OkStatus();
  }));
  model.StartMagnitudes();
  return absl::OkStatus();
}

double RelativeError(double reference, double value) {
  const double scale =
      std::max(std::abs(reference), std::numeric_limits<double>::min());
  // A NaN on either side must not pass as small.
  const double error = std::abs(reference - value) / scale;
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

}  // namespace

std::vector<double> ToDoubles(const Tensor& tensor) {
  std::vector<double> values;
  DispatchFloating(tensor.dtype(), [&](auto element) {
    using T = decltype(element);
    for (const T value : Download<T>(tensor)) {
      values.push_back(static_cast<double>(value));
    }
  });
  return values;
}

absl::StatusOr<GridRecord> RecordGrid(const TrainingSetup& setup,
                                      const Plan& plan, Device& device,
                                      CommunicatorFactory& factory,
                                      const BatchSource& source,
                                      int64_t steps) {
  ASSIGN_OR_RETURN(std::unique_ptr<RankModel> model,
                   RankModel::Build(setup, plan, device, factory,
                                    HostMemoryLimit(factory.world_size())));
  RETURN_IF_ERROR(FillRandomly(*model, setup.seed));
  GridRecord record;
  for (int64_t step = 1; step <= steps; ++step) {
    ASSIGN_OR_RETURN(
        const Batch batch,
        source(device, step, model->first_sample(), model->local_batch()));
    StepOptions options;
    options.step = step;
    options.learning_rate = setup.learning_rate.At(step);
    ASSIGN_OR_RETURN(const GlobalStepResult result,
                     model->Step(batch, options));
    GridRecord::Step entry;
    entry.loss = result.loss;
    entry.gradient_norm = result.gradient_norm;
    ASSIGN_OR_RETURN(
        LogicalGather gather,
        LogicalGather::Create(model->context(), model->GradientParts()));
    gather.Run([&](const SafetensorsEntry& info, const Tensor& whole) {
      entry.gradients.push_back({info.name, ToDoubles(whole)});
      for (double& value : entry.gradients.back().values) {
        value /= result.loss_scale;
      }
    });
    std::sort(entry.gradients.begin(), entry.gradients.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    record.steps.push_back(std::move(entry));
  }
  return record;
}

absl::StatusOr<GridRecord> RecordGridOnThreads(
    const TrainingSetup& setup, const Plan& plan, const BatchSource& source,
    int64_t steps, const ThreadRankOptions& options) {
  RETURN_IF_ERROR(CheckDevice(setup, options.device));
  const int ranks = static_cast<int>(NumRanks(plan));
  std::mutex mutex;
  absl::StatusOr<GridRecord> result = GridRecord();
  const auto run = [&](CommunicatorFactory& factory, int rank) {
    // Each thread has its own setting.
    if (options.threads_per_rank > 0) {
      omp_set_num_threads(options.threads_per_rank);
    }
    HostStagedWorld world(factory);
    const std::unique_ptr<Device> device =
        options.device.Make(options.memory_bytes, setup.kernel_libraries);
    absl::StatusOr<GridRecord> own =
        RecordGrid(setup, plan, *device, world, source, steps);
    const std::lock_guard lock(mutex);
    if (rank == 0 || (!own.ok() && result.ok())) result = std::move(own);
  };
  RunThreadRanks(ranks, run, options.deadline);
  return result;
}

absl::StatusOr<ParityReport> CompareRecords(const GridRecord& reference,
                                            const GridRecord& record) {
  if (reference.steps.size() != record.steps.size()) {
    return InvalidArgument("runs of {} and {} steps", reference.steps.size(),
                           record.steps.size());
  }
  ParityReport report;
  report.bitwise = true;
  for (size_t s = 0; s < reference.steps.size(); ++s) {
    const GridRecord::Step& a = reference.steps[s];
    const GridRecord::Step& b = record.steps[s];
    report.reference_losses.push_back(a.loss);
    report.losses.push_back(b.loss);
    report.worst_loss_error =
        std::max(report.worst_loss_error, RelativeError(a.loss, b.loss));
    report.worst_norm_error =
        std::max(report.worst_norm_error,
                 RelativeError(a.gradient_norm, b.gradient_norm));
    report.bitwise = report.bitwise && a.loss == b.loss &&
                     a.gradient_norm == b.gradient_norm;
    if (a.gradients.size() != b.gradients.size()) {
      return InvalidArgument("step {}: {} and {} logical parameters", s + 1,
                             a.gradients.size(), b.gradients.size());
    }
    double total = 0, elements = 0;
    for (const GridRecord::Gradient& gradient : a.gradients) {
      const double norm = Norm(gradient.values);
      total += norm * norm;
      elements += static_cast<double>(gradient.values.size());
    }
    for (size_t i = 0; i < a.gradients.size(); ++i) {
      const GridRecord::Gradient& x = a.gradients[i];
      const GridRecord::Gradient& y = b.gradients[i];
      if (x.name != y.name || x.values.size() != y.values.size()) {
        return InvalidArgument(
            "step {}: parameter '{}' of {} elements against '{}' of {}", s + 1,
            x.name, x.values.size(), y.name, y.values.size());
      }
      const double norm = Norm(x.values);
      const double floor =
          kFloor *
          std::sqrt(total * static_cast<double>(x.values.size()) / elements);
      const double distance = Distance(x.values, y.values);
      double error = distance == 0 ? 0 : distance / std::max(norm, floor);
      if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
      report.rows.push_back({static_cast<int64_t>(s) + 1, x.name, error, norm});
      report.bitwise = report.bitwise && x.values == y.values;
    }
  }
  std::stable_sort(
      report.rows.begin(), report.rows.end(),
      [](const ParityRow& a, const ParityRow& b) { return a.error > b.error; });
  return report;
}

ParityTolerance ToleranceOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return {1e-10, 1e-10};
    case DType::kFloat32:
      return {1e-5, 1e-5};
    default:
      return {1e-3, 0.3};
  }
}

ParityTolerance ToleranceOf(DType dtype, const Plan& plan) {
  ParityTolerance tolerance = ToleranceOf(dtype);
  const Plan::Grid& grid = plan.grid();
  if (plan.bf16_gradient_messages() && grid.cp() * grid.dp() > 1) {
    tolerance.loss = std::max(tolerance.loss, kBf16Messages.loss);
    tolerance.gradient = std::max(tolerance.gradient, kBf16Messages.gradient);
  }
  return tolerance;
}

std::string ToleranceText(DType dtype) {
  const ParityTolerance tolerance = ToleranceOf(dtype);
  std::string text = fmt::format(
      "tolerance, relative: losses {:.0e}, gradients {:.0e} (with bf16 "
      "gradient messages {:.0e} and {:.0e})\n",
      tolerance.loss, tolerance.gradient,
      std::max(tolerance.loss, kBf16Messages.loss),
      std::max(tolerance.gradient, kBf16Messages.gradient));
  if (dtype != DType::kFloat64 && dtype != DType::kFloat32) {
    text += fmt::format(
        "in {} a wrong term that changes a gradient by less than {:.0f} % "
        "reads "
        "as equal: only FP64 and FP32 show that the plan computes the same\n",
        DTypeName(dtype), 100 * tolerance.gradient);
  }
  return text;
}

bool Within(const ParityReport& report, const ParityTolerance& tolerance) {
  return report.worst_loss_error <= tolerance.loss &&
         report.worst_norm_error <= tolerance.gradient &&
         report.worst_gradient_error() <= tolerance.gradient;
}

std::string ParityText(const ParityReport& report,
                       const ParityTolerance& tolerance, int rows) {
  std::string text = "step      loss (1 rank)      loss (plan)   difference\n";
  for (size_t s = 0; s < report.losses.size(); ++s) {
    text += fmt::format(
        "{:>4}  {:>17.12f}{:>17.12f}   {:>10.2e}\n", s + 1,
        report.reference_losses[s], report.losses[s],
        RelativeError(report.reference_losses[s], report.losses[s]));
  }
  text += fmt::format("worst {} of {} gradients:\n{:>10}  {:>10}  step  name\n",
                      std::min<size_t>(rows, report.rows.size()),
                      report.rows.size(), "error", "norm");
  for (int i = 0; i < rows && i < static_cast<int>(report.rows.size()); ++i) {
    const ParityRow& row = report.rows[i];
    text += fmt::format("{:>10.2e}  {:>10.2e}  {:>4}  {}{}\n", row.error,
                        row.reference_norm, row.step, row.parameter,
                        row.error > tolerance.gradient ? "  <-- outside" : "");
  }
  return text;
}

}  // namespace trireme
