// trireme forward: a stored model at given inputs.

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <string>

#include "fmt/format.h"
#include "runtime/comm/device_world.h"
#include "runtime/comm/host_staged.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/processors.h"
#include "runtime/core/status.h"
#include "runtime/core/timeouts.h"
#include "scheduler/plan/plan.h"
#include "tools/commands.h"
#include "tools/device_option.h"
#include "tools/mpirun.h"
#include "tools/run_as_rank.h"
#include "trainer/forward/forward.h"
#include "trainer/forward/forward_autoencoder.h"
#include "trainer/job/job_file.h"

namespace trireme {
namespace {

constexpr char kName[] = "forward";
constexpr int64_t kMostThreadRanks = 64;
// Of each wait for another rank, as long as a job's by default.
constexpr Timeouts::Duration kDeadline = Timeouts().communication;

struct Parsed {
  ForwardOptions options;
  int64_t ranks = 1;  // the plan's
};

absl::StatusOr<Parsed> OptionsOf(const ParsedCommand& arguments) {
  Parsed parsed;
  ForwardOptions& options = parsed.options;
  options.model = arguments.positionals()[0];
  options.inputs = arguments.Get("inputs");
  options.out = arguments.Get("out");
  options.gradients = arguments.Has("gradients");
  options.ema = arguments.Has("ema");
  const std::string precision = arguments.Get("precision");
  if (precision == "FP64") {
    options.dtype = DType::kFloat64;
  } else if (precision == "BF16") {
    options.dtype = DType::kBFloat16;
  } else if (precision != "FP32") {
    return InvalidArgument(
        "--precision: found '{}', expected FP32, FP64 or "
        "BF16",
        precision);
  }
  if (!arguments.Has("plan")) return parsed;
  ASSIGN_OR_RETURN(const PlanFile plan, LoadPlanFile(arguments.Get("plan")));
  const auto ranks = RanksOf(plan.plan);
  RETURN_IF_ERROR(plan.locations.Locate(ranks.status()));
  parsed.ranks = *ranks;
  options.plan = plan.plan;
  return parsed;
}

// The plan's ranks as threads of this process.
absl::StatusOr<ForwardReport> ForwardOnThreads(const ParsedCommand& arguments,
                                               ForwardOptions options,
                                               int ranks) {
  options.local_ranks = ranks;
  ASSIGN_OR_RETURN(options.device,
                   DeviceOf(arguments, /*local_rank=*/0, ranks));
  const bool share = std::getenv("OMP_NUM_THREADS") == nullptr;
  std::mutex mutex;
  absl::StatusOr<ForwardReport> report = ForwardReport();
  RunThreadRanks(
      ranks,
      [&](CommunicatorFactory& factory, int rank) {
        // Each thread has its own setting.
        if (share) {
          omp_set_num_threads(std::max(1, AvailableProcessors() / ranks));
        }
        HostStagedWorld staged(factory);
        auto own = Forward(options, staged);
        const std::lock_guard lock(mutex);
        if (rank == 0) report = std::move(own);
      },
      kDeadline);
  return report;
}

int Report(const ForwardOptions& options,
           const absl::StatusOr<ForwardReport>& report) {
  if (!report.ok()) return Fail(kName, report.status());
  fmt::print("{} samples through {}: {} tensors in {}\n", report->samples,
             report->weights, report->tensors, options.out);
  return 0;
}

int Run(const ParsedCommand& arguments, int argc, char** argv) {
  auto parsed = OptionsOf(arguments);
  if (!parsed.ok()) return Fail(kName, parsed.status());
  ForwardOptions& options = parsed->options;
  const auto world = JoinWorld(&argc, &argv);
  if (!world.ok()) return Fail(kName, world.status());
  const int64_t size = (*world)->world_size();
  if (size == 1 && IsAutoencoderFolder(options.model)) {
    UseThreadsOf((*world)->processor_share());
    const auto device =
        DeviceOf(arguments, /*local_rank=*/0, /*local_ranks=*/1);
    if (!device.ok()) return Fail(kName, device.status());
    options.device = *device;
    return Report(options, ForwardAutoencoder(options));
  }
  if (size == 1 && parsed->ranks > 1) {
    if (parsed->ranks > kMostThreadRanks) {
      return Fail(kName,
                  InvalidArgument("--plan: found {} ranks, expected at most {} "
                                  "without mpirun",
                                  parsed->ranks, kMostThreadRanks));
    }
    return Report(options, ForwardOnThreads(arguments, options,
                                            static_cast<int>(parsed->ranks)));
  }
  if (size != parsed->ranks) {
    Fail(kName, InvalidArgument("--plan: found one for {} ranks, expected one "
                                "for mpirun's {}",
                                parsed->ranks, size));
    MpiWorld::Abort(1);
  }
  UseThreadsOf((*world)->processor_share());
  options.local_ranks = (*world)->processor_share().ranks;
  const auto device =
      DeviceOf(arguments, (*world)->local_rank(), options.local_ranks);
  if (!device.ok()) {
    Fail(kName, device.status());
    if (size > 1) MpiWorld::Abort(1);
    return 1;
  }
  options.device = *device;
  const DeviceWorld devices =
      MakeDeviceWorld(**world, options.device, (*world)->hang_watch());
  const auto report = Forward(options, *devices.factory);
  if ((*world)->world_rank() != 0) return report.ok() ? 0 : 1;
  return Report(options, report);
}

}  // namespace

Command ForwardCommand() {
  return {
      {.name = kName,
       .summary = "evaluates a run's model, or a folder's, at given inputs",
       .positionals = {{.name = "MODEL",
                        .help = "a run's folder, a checkpoint's, or one of "
                                "weights as diffusers or transformers keeps "
                                "them"}},
       .options =
           {{.name = "inputs",
             .value = "FILE",
             .help = "safetensors with the arguments of diffusers' class by "
                     "their names: hidden_states, timestep, "
                     "encoder_hidden_states, pooled_projections, img_ids, "
                     "txt_ids, guidance, class_labels; others of HiDream's; "
                     "of Swin V2 pixel_values",
             .required = true},
            {.name = "out",
             .value = "FILE",
             .help = "safetensors: the output as `sample`, of Swin V2 as "
                     "`logits`; replaces an earlier output only",
             .required = true},
            {.name = "gradients",
             .help = "also those of the sum of output times `cotangent`, a "
                     "tensor of the inputs' file: gradient.NAME for the "
                     "states among the inputs and for every parameter"},
            {.name = "plan",
             .value = "FILE",
             .help = "evaluates on its ranks: mpirun's, or threads"},
            DeviceOption(),
            {.name = "precision",
             .value = "NAME",
             .default_value = "FP32",
             .help = "FP32, FP64 or BF16"},
            {.name = "ema", .help = "a run's moving average"}},
       .example = "trireme forward weights --inputs in.safetensors --out "
                  "out.safetensors --gradients"},
      Run};
}

}  // namespace trireme
