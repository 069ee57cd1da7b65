#include "trainer/train.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "runtime/comm/control.h"
#include "runtime/comm/patience.h"
#include "runtime/core/file.h"
#include "runtime/core/folder_lock.h"
#include "runtime/core/log.h"
#include "runtime/core/median.h"
#include "runtime/core/processes.h"
#include "runtime/core/status.h"
#include "scheduler/simulator/trace.h"
#include "trainer/checkpoints/checkpoint_saver.h"
#include "trainer/checkpoints/memory_copies.h"
#include "trainer/checkpoints/start_point.h"
#include "trainer/evaluation/evaluations.h"
#include "trainer/job/agreement.h"
#include "trainer/job/batches.h"
#include "trainer/job/memory_limit.h"
#include "trainer/metrics/drive_wear.h"
#include "trainer/metrics/memory_deviation.h"
#include "trainer/preflight/check_device.h"
#include "trainer/preflight/describe.h"
#include "trainer/preflight/tuned_cluster.h"
#include "trainer/rank/rank_model.h"
#include "trainer/run/begin.h"
#include "trainer/run/bucket_list.h"
#include "trainer/run/class_names.h"
#include "trainer/run/data_record.h"
#include "trainer/run/prepare.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/run_log.h"
#include "trainer/sampling/draw_at_end.h"
#include "trainer/training_loop.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

// Of a category's peak from its prediction; more is a defect.
constexpr double kMaxMemoryDeviation = 0.01;

// A group of everyone, before there is a grid.
std::unique_ptr<Communicator> Everyone(CommunicatorFactory& factory) {
  std::vector<int> ranks(factory.world_size());
  std::iota(ranks.begin(), ranks.end(), 0);
  return factory.Create(ranks, "agreement");
}

// The model's memory and what the saver takes of its device.
MemoryStatistics PredictedMemory(const RankModel& model,
                                 const CheckpointSaver& saver) {
  constexpr auto kStaged = static_cast<size_t>(MemoryCategory::kWorkspace);
  MemoryStatistics predicted = model.predicted_memory();
  predicted.peak_bytes += saver.device_bytes();
  predicted.at_peak_by_category[kStaged] += saver.device_bytes();
  predicted.peak_by_category[kStaged] += saver.device_bytes();
  return predicted;
}

// What is on disk is newer from now on. `copies` may be null.
void RemoveCopies(MemoryCopies* copies, const RunFolder& folder, bool leader) {
  if (copies == nullptr) return;
  copies->Remove();
  std::error_code error;
  if (leader) fs::remove(folder.memory_copies(), error);
}

// What whoever wrote the plan expected, beside what was measured; empty where
// the plan says nothing.
std::string PromiseText(const Plan& plan, int logical_rank, int64_t peak_bytes,
                        double step_s) {
  std::string text;
  const Plan::Prediction& predicted = plan.predicted();
  if (predicted.has_step_s() && step_s > 0) {
    text += fmt::format("plan   {:.4g} s a step promised, {:.4g} s measured\n",
                        predicted.step_s(), step_s);
  }
  if (logical_rank < predicted.peak_bytes_size()) {
    const Plan::MemoryBytes& bytes = predicted.peak_bytes(logical_rank);
    text += fmt::format(
        "plan   {} promised on this rank, {} measured\n",
        BytesText(static_cast<int64_t>(
            bytes.parameters() + bytes.gradients() + bytes.optimizer() +
            bytes.activations() + bytes.communication() + bytes.workspace())),
        BytesText(peak_bytes));
  }
  return text;
}

// What rank 0 says before the first step.
void PrintStart(const TrainOptions& options, const PreparedRun& run,
                const RankModel& model, const CheckpointSaver& saver,
                const MemoryStatistics& predicted, int64_t limit,
                const StartPoint& start, std::string_view copies) {
  if (!run.explanation.empty()) {
    fmt::print("{}\n", run.explanation);
  }
  fmt::print("{}", DescribeSetup(run.setup, run.plan, run.data()));
  const bool tf32 = run.setup.kernel_libraries.tf32;
  const bool on_gpu = options.device.kind() == DeviceKind::kCuda;
  fmt::print("device {}{}{}{}\n", options.device.text(),
             options.messages.empty() ? "" : ", messages by ", options.messages,
             !tf32    ? ""
             : on_gpu ? ", products in TF32"
                      : ", which has no TF32: products in fp32");
  fmt::print("memory {} predicted on rank 0, limit {}\n",
             BytesText(predicted.peak_bytes), BytesText(limit));
  fmt::print("saves  {} of rank 0's state, {} of it at once\nrun    {}\n",
             BytesText(saver.state_bytes()),
             BytesText(std::min(saver.state_bytes(), saver.staging_bytes())),
             options.out);
  fmt::print("{}", copies);
  if (run.plan.has_offload()) {
    fmt::print("host   {} of rank 0's blocks\n",
               BytesText(model.host_memory().peak_bytes));
  }
  if (start.step > 0) {
    fmt::print("resumed after step {}{}\n", start.step,
               start.copy.has_value() ? ", from copies in memory" : "");
  } else if (options.resume) {
    fmt::print("found no checkpoint in {} to resume from: starts anew\n",
               RunFolder(options.out).checkpoints());
  }
  std::fflush(stdout);
}

// Where checkpoints are copied to, of the rank with most state.
std::string DescribeStaging(const std::vector<int64_t>& state_bytes,
                            const std::vector<MemoryStatistics>& memory,
                            bool on_host, std::optional<int64_t> limit) {
  const auto rank = std::max_element(state_bytes.begin(), state_bytes.end()) -
                    state_bytes.begin();
  const int64_t state = state_bytes[rank];
  std::string where =
      "all of it at once, as workspace beside the peak, where "
      "the limit leaves as much";
  const int64_t staged =
      on_host && limit.has_value()
          ? StagingOfDevice(state, *limit - memory[rank].peak_bytes)
          : 0;
  if (staged > 0) {
    where = fmt::format("{} of it at once, as workspace beside the peak",
                        BytesText(std::min(state, staged)));
  } else if (!on_host || limit.has_value()) {
    where = fmt::format("{} of it at once, in the host's memory",
                        BytesText(std::min(state, kLeastStagingBytes)));
  }
  return fmt::format("saves  {} of rank {}'s state, {}\n", BytesText(state),
                     rank, where);
}

struct MeasuredMemory {
  MemoryStatistics memory;
  MemoryStatistics predicted;
  int64_t staged_bytes = 0;  // of checkpoints, in both
  MemoryPrediction kind = MemoryPrediction::kExact;
  MemoryDeviation deviation;
  int logical_rank = 0;
};

// What rank 0 says of memory after the last step.
void PrintMemory(const Plan& plan, const MeasuredMemory& measured,
                 double step_s) {
  fmt::print("memory {} measured on rank 0, {} predicted ({})\n",
             BytesText(measured.memory.peak_bytes),
             BytesText(measured.predicted.peak_bytes),
             MemoryText(measured.memory.at_peak_by_category));
  fmt::print(
      "{}",
      PromiseText(plan, measured.logical_rank,
                  measured.memory.peak_bytes - measured.staged_bytes, step_s));
  fmt::print(
      "memory {}at most {:.2f} % {}: {} of rank {}\n",
      measured.deviation.share > kMaxMemoryDeviation ? "WARNING: " : "",
      100 * measured.deviation.share,
      measured.kind == MemoryPrediction::kBound ? "above what any step needs"
                                                : "off the prediction",
      MemoryCategoryName(measured.deviation.category), measured.deviation.rank);
}

// Choices of what moves between experts that another cluster was measured for
// would be slow. Collective.
absl::Status CheckTuned(const TrainOptions& options, const Plan& plan,
                        CommunicatorFactory& factory) {
  const Plan::Experts::TunedFor& tuned = plan.experts().tuned_for();
  if (tuned.machine_ranks() == 0) return absl::OkStatus();
  if (tuned.device().empty() && factory.world_rank() == 0) {
    fmt::print(
        "WARNING: plan.experts.tuned_for names no devices and no links: its "
        "choices were measured by an earlier version, and may be slow on these "
        "(trireme tune measures them again)\n");
  }
  return CheckTunedCluster(
      tuned, MeasureTunedCluster({.host = options.host.value_or(HostName()),
                                  .device = options.device},
                                 factory));
}

}  // namespace

absl::StatusOr<RunEnd> Train(const TrainOptions& options,
                             CommunicatorFactory& factory) {
  const bool leader = factory.world_rank() == 0;
  const RunFolder folder(options.out);
  std::optional<FolderLock> lock;
  const std::unique_ptr<Communicator> everyone = Everyone(factory);
  Control agreement(*everyone);
  const auto prepare = [&]() -> absl::StatusOr<PreparedRun> {
    if (leader) RETURN_IF_ERROR(CheckRunFolder(folder, options.resume));
    ASSIGN_OR_RETURN(PreparedRun made, PrepareRun(options.job, options.plan,
                                                  factory.world_size()));
    // A folder that is not there yet is made last, when all is in order.
    std::error_code error;
    if (leader && fs::exists(folder.root(), error)) {
      ASSIGN_OR_RETURN(
          lock, LockRunFolder(folder, options.resume, options.lock_patience));
    }
    return made;
  };
  const absl::StatusOr<PreparedRun> prepared = prepare();
  // A data set is listed, and a folder waited for, for as long as it takes.
  AwaitAllPatiently(*everyone, "preparing the job");
  RETURN_IF_ERROR(agreement.Agree(prepared.status(), "preparing the job"));
  const Job& job = prepared->job;
  const TrainingSetup& setup = prepared->setup;
  const Plan& plan = prepared->plan;
  RETURN_IF_ERROR(AgreeOnJob(agreement, job, plan, *prepared->dataset,
                             prepared->held_out.get()));
  // What is left of a cluster goes on as it can.
  if (!options.resume) {
    RETURN_IF_ERROR(CheckTuned(options, plan, factory));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<MemoryCopies> copies,
                   OpenMemoryCopies(options, folder, job, factory, agreement));
  ASSIGN_OR_RETURN(
      StartPoint start,
      ChooseStart(options, folder, job, copies.get(), *everyone, agreement));
  absl::Status same_data;
  if (leader && start.checkpoint.has_value()) {
    same_data = CheckSameData(folder, *prepared->dataset, options.allow);
  }
  RETURN_IF_ERROR(
      agreement.Agree(same_data, "comparing the data with the run's"));
  const int64_t done = start.step;
  // What only memory has is saved first.
  if (done >= static_cast<int64_t>(job.steps()) && !start.copy.has_value()) {
    if (leader) {
      fmt::print("nothing to do: all {} steps are done ({})\n", job.steps(),
                 *start.checkpoint);
    }
    // It may have been ended before it came to that.
    RemoveCopies(copies.get(), folder, leader);
    return RunEnd::kAllSteps;
  }

  RETURN_IF_ERROR(
      agreement.Agree(CheckDevice(setup, options.device), "devices"));
  const int64_t limit = MemoryLimit(job, options.device, options.share.ranks);
  const std::unique_ptr<Device> device =
      options.device.Make(limit, setup.kernel_libraries);
  const absl::StatusOr<int64_t> drawing_bytes = PredictDrawingAtEnd(
      job, setup, plan, factory.world_rank(), options.device.kind(), limit);
  RETURN_IF_ERROR(
      agreement.Agree(drawing_bytes.status(), "memory to draw samples"));
  Evaluations evaluations(*prepared);
  ASSIGN_OR_RETURN(std::unique_ptr<RankModel> model,
                   RankModel::Build(setup, plan, *device, factory,
                                    HostMemoryLimit(options.share.ranks),
                                    evaluations.rehearsal()));
  ASSIGN_OR_RETURN(TrainingProgress progress,
                   LoadStart(*model, start, copies.get(), job.init()));
  progress.step = done;
  if (prepared->dataset->buckets() != nullptr) {
    RETURN_IF_ERROR(GoOnInBatchesOf(setup.global_batch, progress));
  } else {
    progress.batches.clear();
  }
  const int64_t left = limit - model->predicted_memory().peak_bytes;
  ASSIGN_OR_RETURN(const int64_t reserved,
                   ReserveForCopies(*model, job, copies.get(), left,
                                    HostMemoryLimit(options.share.ranks)));
  auto saver = std::make_unique<CheckpointSaver>(
      *model,
      SaverOptions{.folder = folder.checkpoints(),
                   .keep = job.checkpoint().keep(),
                   .free_bytes = device->on_host() ? left - reserved : left,
                   .copies = copies.get(),
                   .behind_next_step = true});
  RETURN_IF_ERROR(saver->DropCopiesAfter(done));
  const MemoryStatistics predicted = PredictedMemory(*model, *saver);
  std::optional<DriveWear> wear;
  if (model->drive() != nullptr) wear.emplace(*model);
  std::unique_ptr<RunLog> log;
  const auto begin = [&]() -> absl::Status {
    if (!leader) return absl::OkStatus();
    if (!lock.has_value()) {
      ASSIGN_OR_RETURN(
          lock, LockRunFolder(folder, options.resume, options.lock_patience));
    }
    RETURN_IF_ERROR(WriteRunFolder(folder, job, plan, done));
    RETURN_IF_ERROR(SetLaterCheckpointsAside(folder.checkpoints(), done));
    RETURN_IF_ERROR(WriteClassNames(folder, ClassNamesOf(*prepared->dataset)));
    RETURN_IF_ERROR(WriteDataRecord(folder, *prepared->dataset, done));
    RETURN_IF_ERROR(WriteBucketList(folder, *prepared->dataset));
    ASSIGN_OR_RETURN(log,
                     RunLog::Open(folder, job, done + 1, options.progress_bar));
    if (copies != nullptr) {
      RETURN_IF_ERROR(
          WriteFileAtomically(folder.memory_copies(), copies->id()));
    }
    PrintStart(options, *prepared, *model, *saver, predicted, limit, start,
               CopiesText(job, copies.get(), reserved));
    if (wear.has_value()) {
      fmt::print("{}", wear->AtStart());
      std::fflush(stdout);
    }
    return absl::OkStatus();
  };
  // A run that cannot be saved is not begun.
  RETURN_IF_ERROR(AgreeOnRunFolder(agreement, folder.root(),
                                   options.host.value_or(HostName()),
                                   PatienceWithFolder(folder.root())));
  const absl::Status begun = begin();
  // Rank 0 lists every picture of data.buckets.
  AwaitAllPatiently(*everyone, "beginning the run");
  RETURN_IF_ERROR(agreement.Agree(begun, "beginning the run"));

  TrainingLoop::End end;
  double waited_s = 0;  // for saves but the last
  MeasuredMemory measured = {
      .predicted = predicted,
      .staged_bytes = saver->device_bytes(),
      .kind = plan.grid().ep() > 1 || setup.buckets.size() > 1
                  ? MemoryPrediction::kBound
                  : MemoryPrediction::kExact,
      .logical_rank = model->grid().logical_rank()};
  {
    RETURN_IF_ERROR(evaluations.Begin(*model, factory));
    TrainingLoop loop(options, *prepared, *model, *saver, evaluations,
                      log.get(), progress);
    ASSIGN_OR_RETURN(end, loop.Run(*device));
    waited_s = loop.waited_for_saves_s();
    if (options.trace) {
      RETURN_IF_ERROR(MakeDirectories(folder.trace()));
      RETURN_IF_ERROR(WriteChromeTraceFile(
          end.trace, fmt::format("{}/rank_{}.json", folder.trace(),
                                 factory.world_rank())));
      if (leader && !end.timelines.measured.empty()) {
        RETURN_IF_ERROR(WriteChromeTraceFile(
            end.timelines, folder.trace() + "/timelines.json"));
      }
    }
    measured.memory = device->Statistics();
    if (!evaluations.DidAll()) measured.kind = MemoryPrediction::kBound;
    measured.deviation =
        LargestMemoryDeviation(measured.memory, predicted, measured.kind,
                               model->context().communicators().control());
  }
  if (leader) {
    fmt::print(
        "saved  {} times{}; training waited {:.2g} s for it, the end {:.2g} "
        "s\n",
        saver->saves(),
        copies != nullptr ? fmt::format(", {} times to memory", saver->copies())
                          : "",
        waited_s, saver->seconds() - waited_s);
    if (wear.has_value()) {
      fmt::print("{}", wear->AtEnd(Median(end.step_seconds)));
    }
  }
  // Its state is saved: what draws gets its memory.
  saver.reset();
  model.reset();
  RemoveCopies(copies.get(), folder, leader);
  if (leader) RETURN_IF_ERROR(log->Finish());
  if (leader && end.stopped) {
    fmt::print(
        "stopped after step {} of {}, as ordered; --resume goes on from "
        "there\n",
        end.last_step, job.steps());
  }
  const bool draws =
      !end.stopped && job.sample().at_end() && !DrawsAtEnd(job, plan);
  bool drawing_stopped = !end.stopped && end.ordered_to_stop &&
                         (draws || evaluations.DrewInVain(end.last_step));
  if (draws && !drawing_stopped) {
    bool ordered = false;
    std::function<bool()> stop;
    if (options.orders) {
      stop = [&options, &ordered] {
        ordered |= options.orders().stop;
        return ordered;
      };
    }
    // What cannot be drawn now can be later.
    const absl::StatusOr<DrawnAtEnd> drawn =
        DrawAtEnd(folder, end.last_step, options.device, options.share.ranks,
                  factory, stop);
    std::array<int64_t, 1> any = {absl::IsCancelled(drawn.status())};
    agreement.Max(any, "whether drawing was stopped");
    drawing_stopped = any[0] != 0;
    absl::Status shown = drawn.status();
    if (leader && drawn.ok()) {
      shown = log->AddSamples(end.last_step, drawn->path);
      fmt::print("drew   {} {}: {}; memory {} on rank 0, {} predicted\n",
                 drawn->report.samples, drawn->report.things, drawn->path,
                 BytesText(drawn->report.peak_bytes),
                 BytesText(*drawing_bytes));
    }
    if (leader && !shown.ok() && !drawing_stopped) {
      LOG(WARNING) << "drew nothing: " << MessageOf(shown);
    }
  }
  if (leader && drawing_stopped) {
    fmt::print(
        "stopped after all steps, as ordered; `trireme sample {}` draws what "
        "was to be drawn\n",
        options.out);
  }
  if (leader) {
    PrintMemory(plan, measured, Median(end.step_seconds));
    if (end.skipped_samples > 0) {
      fmt::print("{} samples could not be read and were skipped\n",
                 end.skipped_samples);
    }
  }
  return end.stopped || drawing_stopped ? RunEnd::kStopped : RunEnd::kAllSteps;
}

absl::StatusOr<RunDescription> DescribeRun(const TrainOptions& options,
                                           int64_t ranks) {
  ASSIGN_OR_RETURN(const PreparedRun run,
                   PrepareRun(options.job, options.plan, ranks));
  RETURN_IF_ERROR(CheckDevice(run.setup, options.device));
  const Evaluations evaluations(run);
  const RankModel::BetweenSteps rehearsal = evaluations.rehearsal();
  std::vector<int64_t> state_bytes;
  const auto between_steps = [&](RankModel& dry) {
    state_bytes.push_back(StateBytes(dry));
    return rehearsal != nullptr ? rehearsal(dry) : absl::OkStatus();
  };
  ASSIGN_OR_RETURN(const std::vector<RankModel::Needs> needs,
                   PredictNeedsOfRanks(run.setup, run.plan,
                                       options.device.kind(), between_steps));
  std::vector<MemoryStatistics> memory;
  for (const RankModel::Needs& rank : needs) memory.push_back(rank.device);
  RunDescription description;
  description.text = run.explanation;
  if (!run.explanation.empty()) description.text += "\n";
  description.text += DescribeSetup(run.setup, run.plan, run.data()) +
                      DescribeMemory(memory) + DescribeHosts(needs) +
                      DescribeDrive(needs, run.plan);
  description.fits = CheckDrive(needs, run.plan);
  // Without the field the limit is that of the machine where it will run.
  std::optional<int64_t> given;
  if (run.job.has_memory_limit_bytes()) {
    given = MemoryLimit(run.job, options.device, /*local_ranks=*/1);
  }
  description.text += DescribeStaging(
      state_bytes, memory, options.device.kind() == DeviceKind::kCpu, given);
  if (!given.has_value()) return description;
  const int64_t limit = *given;
  description.text += fmt::format("limit  {:>10}\n", BytesText(limit));
  for (size_t rank = 0; rank < memory.size(); ++rank) {
    if (memory[rank].peak_bytes <= limit || !description.fits.ok()) continue;
    description.fits = ResourceExhausted(
        "memory_limit_bytes: found {}, expected at least the {} that rank {} "
        "would need",
        BytesText(limit), BytesText(memory[rank].peak_bytes), rank);
  }
  return description;
}

}  // namespace trireme
