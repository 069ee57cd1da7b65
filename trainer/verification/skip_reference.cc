#include "trainer/verification/skip_reference.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "parallel/executor/chunk_pass.h"
#include "parallel/grid/process_grid.h"
#include "parallel/optimizer/loss_scaler.h"
#include "parallel/optimizer/optimizer.h"
#include "parallel/parameters/delayed_scaling.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/reduction.h"
#include "scheduler/plan/stage_ranks.h"
#include "trainer/rank/local_model.h"

namespace trireme {
namespace {

class SkipReference {
 public:
  SkipReference(const TrainingSetup& setup, const Plan& plan, Device& device)
      : setup_(setup),
        plan_(plan),
        model_(setup, ProcessGrid(), world_, {}, StagesOf(plan), device),
        loss_scaler_(setup.loss_scale) {
    model_.MakeGradients();
    CountVisits();
    BuildOptimizer();
  }

  absl::StatusOr<GridRecord::Step> Step(const Batch& batch, int64_t step) {
    const double scale = loss_scaler_.state().scale;
    Batch counted_batch = batch;
    counted_batch.counted = SumOf(batch, setup_.objective->counted_field());
    model_.inputs().Set(std::move(counted_batch), *setup_.objective);
    for (const LocalModel::Part& stage : model_.parts()) {
      for (const auto& parameter : stage.store->parameters()) {
        parameter->grad.FillZero();
      }
    }
    DelayedScaling* const scaling = model_.delayed_scaling();
    if (scaling != nullptr) scaling->BeginStep();
    GridRecord::Step record;
    for (int m = 0; m < plan_.skip().paths_size(); ++m) {
      record.loss += RunMicrobatch(m, scale);
    }
    RETURN_IF_ERROR(model_.status());
    if (scaling != nullptr) scaling->EndStep(model_.communicators().control());
    ScaleGradients();
    record.gradient_norm = optimizer_->ClipGradients(scale);
    const int64_t counted = step - loss_scaler_.state().skipped_steps;
    loss_scaler_.Update(std::isfinite(record.gradient_norm));
    for (size_t s = 0; s < model_.parts().size(); ++s) {
      if (visits_[s] == 0) continue;
      optimizer_->Update(static_cast<int>(s), counted,
                         setup_.learning_rate.At(step));
    }
    AddGradients(scale, record);
    return record;
  }

 private:
  // In the model's order, then the head, which every path ends in.
  static std::vector<ChunkRequest> StagesOf(const Plan& plan) {
    std::vector<ChunkRequest> stages;
    BlockRange blocks;
    for (const Plan::Stage& stage : plan.stages()) {
      blocks.end = blocks.first + stage.blocks();
      stages.push_back({.blocks = blocks, .head = false});
      blocks.first = blocks.end;
    }
    stages.push_back({.blocks = blocks, .head = true});
    for (ChunkRequest& stage : stages) {
      stage.microbatch_size = plan.microbatch_size();
    }
    return stages;
  }

  void CountVisits() {
    visits_.assign(model_.parts().size(), 0);
    for (const Plan::Skip::Path& path : plan_.skip().paths()) {
      for (const uint32_t rank : path.ranks()) {
        ++visits_[StageOfRank(plan_, rank)];
      }
      ++visits_.back();
    }
  }

  void BuildOptimizer() {
    std::vector<std::vector<OwnedParameter>> owned;
    for (const LocalModel::Part& stage : model_.parts()) {
      std::vector<OwnedParameter>& of_stage = owned.emplace_back();
      for (const auto& parameter : stage.store->parameters()) {
        OwnedParameter entry;
        entry.parameter = parameter.get();
        entry.range = {0, parameter->local_elements()};
        entry.value = parameter->value;
        entry.gradient = parameter->grad;
        of_stage.push_back(std::move(entry));
      }
    }
    optimizer_ = std::make_unique<Optimizer>(model_.context(), setup_.optimizer,
                                             setup_.seed, std::move(owned));
  }

  // Forward along the path and backward; returns its part of the loss.
  double RunMicrobatch(int m, double loss_scale) {
    std::vector<int> route;
    for (const uint32_t rank : plan_.skip().paths(m).ranks()) {
      route.push_back(static_cast<int>(StageOfRank(plan_, rank)));
    }
    route.push_back(static_cast<int>(model_.parts().size()) - 1);
    AllResident store;
    std::vector<ChunkPass> passes;
    std::vector<Tensor> state;
    for (const int stage : route) {
      ChunkPass& pass = passes.emplace_back(
          model_.context(), *model_.parts()[stage].chunk, store, m);
      pass.set_loss_scale(loss_scale);
      state = pass.Forward(std::move(state));
    }
    double loss = 0;
    // Blocks with experts add losses of their own.
    for (const ChunkPass& pass : passes) {
      for (const Tape::Loss& part : pass.losses()) {
        loss += Sum(part.value) * part.weight;
      }
    }
    for (auto pass = passes.rbegin(); pass != passes.rend(); ++pass) {
      state =
          pass->Backward(std::move(state), Tape::WeightGradients::kImmediate);
    }
    return loss;
  }

  // A backward's gradients are parts of a mean over all microbatches.
  void ScaleGradients() {
    if (plan_.skip().divisor() != Plan::Skip::VISITS) return;
    for (size_t s = 0; s < model_.parts().size(); ++s) {
      if (visits_[s] == 0) continue;
      const double factor =
          static_cast<double>(plan_.skip().paths_size()) / visits_[s];
      for (const auto& parameter : model_.parts()[s].store->parameters()) {
        parameter->grad.CopyFrom(Scale(parameter->grad, factor));
      }
    }
  }

  void AddGradients(double scale, GridRecord::Step& record) const {
    for (const LocalModel::Part& stage : model_.parts()) {
      for (const auto& parameter : stage.store->parameters()) {
        record.gradients.push_back(
            {parameter->name, ToDoubles(parameter->grad)});
        for (double& value : record.gradients.back().values) value /= scale;
      }
    }
    std::sort(record.gradients.begin(), record.gradients.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
  }

  TrainingSetup setup_;
  Plan plan_;
  SingleWorld world_;
  LocalModel model_;
  LossScaler loss_scaler_;
  std::vector<int> visits_;
  std::unique_ptr<Optimizer> optimizer_;
};

}  // namespace

absl::StatusOr<GridRecord> RecordSkipReference(const TrainingSetup& setup,
                                               const Plan& plan, Device& device,
                                               const BatchSource& source,
                                               int64_t steps) {
  CHECK(plan.has_skip());
  SkipReference reference(setup, plan, device);
  GridRecord record;
  for (int64_t step = 1; step <= steps; ++step) {
    ASSIGN_OR_RETURN(const Batch batch,
                     source(device, step, 0, setup.global_batch));
    ASSIGN_OR_RETURN(GridRecord::Step entry, reference.Step(batch, step));
    record.steps.push_back(std::move(entry));
  }
  return record;
}

}  // namespace trireme
