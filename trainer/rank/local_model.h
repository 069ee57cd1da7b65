// One rank's chunks of a model with all they run on: device, grid,
// communicators, parameters. What trains, measures, predicts or samples builds
// its model with this.

#ifndef TRIREME_TRAINER_RANK_LOCAL_MODEL_H_
#define TRIREME_TRAINER_RANK_LOCAL_MODEL_H_

#include <memory>
#include <span>
#include <vector>

#include "models/family.h"
#include "parallel/grid/communicators.h"
#include "parallel/grid/context.h"
#include "parallel/grid/process_grid.h"
#include "parallel/parameters/delayed_scaling.h"
#include "parallel/parameters/parameter_store.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/device.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

class LocalModel {
 public:
  struct Part {
    ChunkRequest request;
    std::unique_ptr<ParameterStore> store;
    std::unique_ptr<Chunk> chunk;
  };

  // Collective over the factory's world. `allocate`: which parameters
  // have values (ParameterShards and OffloadedUnits make others). Device,
  // factory and the setup's family outlive the model.
  LocalModel(
      const TrainingSetup& setup, const ProcessGrid& grid,
      CommunicatorFactory& factory, const CommunicatorOptions& communicators,
      std::span<const ChunkRequest> chunks, Device& device,
      ParameterStore::Allocate allocate = ParameterStore::Allocate::kAll);
  LocalModel(const LocalModel&) = delete;
  LocalModel& operator=(const LocalModel&) = delete;

  // Gives every parameter that trains a gradient of zeros, for whoever runs
  // without a reducer.
  void MakeGradients();

  // What the chunks read of a batch, each field once; where pictures come in
  // several sizes, of the first.
  std::vector<FieldSpec> Fields() const;
  // Before the chunks run.
  StepInputs& inputs() { return inputs_; }

  Device& device() const { return context_.device(); }
  const ProcessGrid& grid() const { return grid_; }
  Communicators& communicators() { return communicators_; }
  ParallelContext& context() { return context_; }
  // Null without delayed scaling.
  DelayedScaling* delayed_scaling() { return delayed_scaling_.get(); }
  const std::vector<Part>& parts() const { return parts_; }
  // The only part.
  const Part& part() const;
  absl::Status status() const;

 private:
  std::shared_ptr<const ModelFamily> family_;
  ProcessGrid grid_;
  Communicators communicators_;
  ParallelContext context_;
  StepInputs inputs_;
  std::vector<Part> parts_;
  std::unique_ptr<DelayedScaling> delayed_scaling_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_RANK_LOCAL_MODEL_H_
