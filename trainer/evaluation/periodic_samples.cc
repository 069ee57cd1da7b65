#include "trainer/evaluation/periodic_samples.h"

#include <limits>
#include <memory>
#include <numeric>
#include <utility>

#include "runtime/comm/control.h"
#include "runtime/comm/patience.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "trainer/sampling/draw_samples.h"
#include "trainer/sampling/prompts.h"
#include "trainer/sampling/sample_medium.h"
#include "trainer/sampling/sampler.h"

namespace trireme {
namespace {

// Of every drawing: what changes is the model.
constexpr uint64_t kSeed = 0;

int64_t MicrobatchSizeOf(const RankModel& model) {
  return static_cast<int64_t>(model.plan().microbatch_size());
}

absl::Status WriteGrid(const Job& job, const TrainingSetup& setup,
                       const std::string& path, const DrawnRows& rows,
                       Device& device) {
  ASSIGN_OR_RETURN(const std::unique_ptr<SampleMedium> medium,
                   MediumOf(*setup.family, job.data(), device));
  RETURN_IF_ERROR(medium->CheckFiles(path, /*overwrite=*/true));
  return medium->Write(path, rows);
}

}  // namespace

PeriodicSamples::PeriodicSamples(const Job& job, const TrainingSetup& setup)
    : job_(job), setup_(setup), options_(SamplingOf(job.sample(), setup)) {}

absl::Status PeriodicSamples::Rehearse(RankModel& dry) const {
  const int64_t samples =
      RowsOf(job_.sample(), *setup_.family) * job_.sample().per_class();
  RETURN_IF_ERROR(dry.Evaluate(
      /*averaged=*/true, [&](LocalModel& local, StageForward& forward) {
        return Sampler(setup_, local, forward, MicrobatchSizeOf(dry))
            .Rehearse(options_, samples);
      }));
  // Rank 0 has the decoder beside the model.
  Device& device = dry.context().device();
  const bool decodes =
      dry.context().communicators().control().rank() == 0 && device.on_host();
  return decodes ? RehearseDecoding(*setup_.family, job_.data(), device)
                 : absl::OkStatus();
}

absl::Status PeriodicSamples::Begin(const Dataset& dataset,
                                    const std::vector<std::string>& class_names,
                                    CommunicatorFactory& factory) {
  std::vector<int> ranks(factory.world_size());
  std::iota(ranks.begin(), ranks.end(), 0);
  const std::unique_ptr<Communicator> everyone =
      factory.Create(ranks, "prompts");
  Control control(*everyone);
  absl::StatusOr<std::vector<Sample>> prompts = std::vector<Sample>();
  if (control.rank() == 0) {
    const auto& of_job = job_.sample().prompts();
    const auto held_out = OpenHeldOutVoxels(*setup_.family, job_.data());
    absl::StatusOr<std::vector<Prompt>> rows = std::vector<Prompt>();
    if (held_out.ok()) {
      rows = RowPrompts(
          {*setup_.family, *held_out != nullptr ? held_out->get() : &dataset,
           class_names},
          {of_job.begin(), of_job.end()}, DrawOptions().max_rows);
    } else {
      rows = held_out.status();
    }
    if (rows.ok()) {
      for (const Prompt& row : *rows) names_.push_back(row.name);
      prompts = SamplesOf(*rows, job_.sample().per_class());
    } else {
      prompts = rows.status();
    }
  }
  ASSIGN_OR_RETURN(prompts_, SharePrompts(*everyone, control, prompts));
  return absl::OkStatus();
}

absl::Status PeriodicSamples::Draw(RankModel& model, const std::string& path,
                                   const std::function<bool()>& stop) const {
  std::vector<float> drawn;
  RETURN_IF_ERROR(model.Evaluate(
      /*averaged=*/true,
      [&](LocalModel& local, StageForward& forward) -> absl::Status {
        Sampler sampler(setup_, local, forward, MicrobatchSizeOf(model));
        sampler.StopWhen(stop);
        ASSIGN_OR_RETURN(drawn, sampler.Draw(options_, kSeed, prompts_));
        return absl::OkStatus();
      }));
  Communicators& communicators = model.context().communicators();
  absl::Status status;
  if (communicators.control().rank() == 0) {
    // Latents of a GPU's model are decoded by the processor.
    CpuDevice host(std::numeric_limits<int64_t>::max());
    Device& device = model.context().device();
    status =
        WriteGrid(job_, setup_, path,
                  {names_, job_.sample().per_class(), drawn, prompts_, stop},
                  device.on_host() ? device : host);
  }
  // Rank 0 decodes latents and makes meshes, which takes what it takes.
  AwaitAllPatiently(communicators.world(), "writing what is drawn");
  return communicators.control().Agree(status, "writing what is drawn");
}

}  // namespace trireme
