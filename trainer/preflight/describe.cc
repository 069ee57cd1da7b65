#include "trainer/preflight/describe.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include "fmt/format.h"
#include "moe/moe_config.h"
#include "offload/unit_window.h"
#include "runtime/core/status.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.h"
#include "scheduler/plan/stage_ranks.h"
#include "trainer/config/local_path.h"
#include "trainer/planning/model_shape_of.h"
#include "trainer/rank/model_parameters.h"
#include "trainer/rank/rank_model.h"

namespace trireme {
namespace {

// "33.0 M", "1.2 G".
std::string Short(double value) {
  if (value >= 1e12) return fmt::format("{:.2f} T", value / 1e12);
  if (value >= 1e9) return fmt::format("{:.2f} G", value / 1e9);
  return fmt::format("{:.2f} M", value / 1e6);
}

std::string KeptIn(WeightFormat format) {
  switch (format) {
    case WeightFormat::kFloat8:
      return ", kept in FP8";
    case WeightFormat::kNormalFloat4:
      return ", kept in NF4";
    case WeightFormat::kFull:
      return "";
  }
  return "";
}

}  // namespace

int64_t CountParameters(const TrainingSetup& setup) {
  return ParametersOf(*setup.family, {}).elements;
}

std::string DescribeSetup(const TrainingSetup& setup, const Plan& plan,
                          const DataSummary& data) {
  const ModelShape shape = ModelShapeOf(setup);
  std::string text =
      fmt::format("model  {}; {}parameters in {}{}\n", setup.family->Describe(),
                  Short(static_cast<double>(CountParameters(setup))),
                  DTypeName(setup.dtype),
                  setup.float8.layers.empty() ? ""
                  : setup.float8.history == 0 ? ", products in FP8"
                                              : ", products in FP8 with scales "
                                                "of earlier steps");
  if (!setup.trained.all()) {
    const TrainedParameters& trained = setup.trained;
    text += fmt::format(
        "train  {}parameters{}, on the weights of {}{}\n",
        Short(static_cast<double>(
            ParametersOf(*setup.family, trained).trained_elements)),
        trained.kind == TrainedParameters::Kind::kAdapters
            ? fmt::format(" of {}adapters of rank {}",
                          trained.decompose ? "decomposing " : "", trained.rank)
            : "",
        setup.base.weights, KeptIn(trained.frozen));
  }
  text += fmt::format("flops  {}FLOP per sample: {}\n",
                      Short(ModelTrainingFlops(shape)), kModelFlopsMeaning);
  text += fmt::format("data   {} samples in {} classes\n", data.samples,
                      data.classes);
  for (size_t b = 0; b < data.bucket_samples.size(); ++b) {
    const SizedFamily& sized = setup.buckets[b];
    text += fmt::format("size   {}x{}: {} samples of {} tokens\n",
                        sized.size.height, sized.size.width,
                        data.bucket_samples[b], sized.family->Shape().tokens);
  }
  text += fmt::format("plan   {}\n", Summary(plan));
  text += DescribeMicrobatchLosses(setup, plan);
  return text;
}

std::string DescribeMicrobatchLosses(const TrainingSetup& setup,
                                     const Plan& plan) {
  const MoeConfig* experts = setup.family->experts();
  if (experts == nullptr || !experts->learns_by_microbatch()) return "";
  return fmt::format(
      "losses of the router by microbatch, of {} samples in this plan: with "
      "another plan.microbatch_size they are others, and so is what is "
      "learnt\n",
      plan.microbatch_size());
}

absl::StatusOr<std::vector<RankModel::Needs>> PredictNeedsOfRanks(
    const TrainingSetup& setup, const Plan& plan, DeviceKind kind,
    const RankModel::BetweenSteps& rehearsal) {
  std::vector<RankModel::Needs> needs(NumRanks(plan));
  for (size_t rank = 0; rank < needs.size(); ++rank) {
    ASSIGN_OR_RETURN(needs[rank],
                     RankModel::PredictNeeds(
                         setup, plan, static_cast<int>(rank), kind, rehearsal));
  }
  return needs;
}

absl::StatusOr<std::vector<MemoryStatistics>> PredictMemoryOfRanks(
    const TrainingSetup& setup, const Plan& plan, DeviceKind kind,
    const RankModel::BetweenSteps& rehearsal) {
  ASSIGN_OR_RETURN(const std::vector<RankModel::Needs> needs,
                   PredictNeedsOfRanks(setup, plan, kind, rehearsal));
  std::vector<MemoryStatistics> memory;
  for (const RankModel::Needs& of_rank : needs) {
    memory.push_back(of_rank.device);
  }
  return memory;
}

std::string DescribeMemory(const std::vector<MemoryStatistics>& memory) {
  std::string text = "rank        peak  at the peak\n";
  for (size_t rank = 0; rank < memory.size(); ++rank) {
    text += fmt::format("{:>4}  {:>10}  {}\n", rank,
                        BytesText(memory[rank].peak_bytes),
                        MemoryText(memory[rank].at_peak_by_category));
  }
  return text;
}

std::string DescribeHosts(const std::vector<RankModel::Needs>& needs) {
  std::string text;
  for (size_t rank = 0; rank < needs.size(); ++rank) {
    const MemoryStatistics& host = needs[rank].host;
    if (host.peak_bytes == 0) continue;
    if (text.empty()) text = "rank   host peak  at the peak\n";
    text += fmt::format("{:>4}  {:>10}  {}\n", rank, BytesText(host.peak_bytes),
                        MemoryText(host.at_peak_by_category));
  }
  return text;
}

namespace {

// In the folder, or in what of its path is there. Nothing where the system does
// not tell.
std::optional<int64_t> FreeBytes(const std::string& folder) {
  std::error_code error;
  std::filesystem::path there = std::filesystem::absolute(folder, error);
  while (!std::filesystem::exists(there, error) && there.has_parent_path() &&
         there != there.parent_path()) {
    there = there.parent_path();
  }
  const std::filesystem::space_info space =
      std::filesystem::space(there, error);
  if (error) return std::nullopt;
  return static_cast<int64_t>(space.available);
}

}  // namespace

std::string DescribeDrive(const std::vector<RankModel::Needs>& needs,
                          const Plan& plan) {
  if (!plan.offload().has_nvme()) return "";
  const Plan::Offload::Nvme& nvme = plan.offload().nvme();
  const std::string folder = LocalPath(nvme.folder()).value_or(nvme.folder());
  std::string text = "rank    on drive  read a step  written a step\n";
  int64_t bytes = 0;
  DriveBytes step;
  for (size_t rank = 0; rank < needs.size(); ++rank) {
    const RankModel::Needs& own = needs[rank];
    bytes += own.drive_bytes;
    step.read += own.drive_step.read;
    step.written += own.drive_step.written;
    text += fmt::format(
        "{:>4}  {:>10}  {:>11}  {}\n", rank, BytesText(own.drive_bytes),
        BytesText(own.drive_step.read), BytesText(own.drive_step.written));
  }
  text += fmt::format(
      "drive  {} of all ranks in {}, {} read and {} written a step",
      BytesText(bytes), folder, BytesText(step.read), BytesText(step.written));
  if (const auto free = FreeBytes(folder)) {
    text +=
        fmt::format("; {} are free there on this machine", BytesText(*free));
  }
  // Of one drive, were all ranks on its machine.
  if (nvme.drive_endurance_tbw() > 0 && step.written > 0) {
    text += fmt::format(
        "; {:.4g} TB of writes are {:.3g} steps of all ranks on one drive",
        nvme.drive_endurance_tbw(),
        nvme.drive_endurance_tbw() * 1e12 / static_cast<double>(step.written));
  }
  return text + "\n";
}

absl::Status CheckDrive(const std::vector<RankModel::Needs>& needs,
                        const Plan& plan) {
  if (!plan.offload().has_nvme()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string folder,
                   LocalPath(plan.offload().nvme().folder()));
  const std::optional<int64_t> free = FreeBytes(folder);
  for (size_t rank = 0; free.has_value() && rank < needs.size(); ++rank) {
    if (needs[rank].drive_bytes <= *free) continue;
    return ResourceExhausted(
        "plan.offload.nvme.folder: found {} with {} free, expected at least "
        "the {} that rank {} would need",
        folder, BytesText(*free), BytesText(needs[rank].drive_bytes), rank);
  }
  return absl::OkStatus();
}

}  // namespace trireme
