// A small model whose blocks are at home, trained by lists of any kind: for
// tests of what carries them out.

#ifndef TRIREME_TESTS_PARITY_OFFLOADED_MLP_H_
#define TRIREME_TESTS_PARITY_OFFLOADED_MLP_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "offload/device_buffers.h"
#include "offload/host_buffers.h"
#include "offload/offloaded_units.h"
#include "offload/unit_layout.h"
#include "parallel/executor/chunk_pass.h"
#include "parallel/executor/executor.h"
#include "parallel/executor/mlp_model_testing.h"
#include "parallel/grid/communicators.h"
#include "parallel/grid/context.h"
#include "parallel/optimizer/optimizer.h"
#include "parallel/sharding/parameter_buckets.h"

namespace trireme {

// One rank's, with all it trains with.
class OffloadedMlp {
 public:
  // With `places` for blocks on `device`. All outlive it.
  OffloadedMlp(Device& device, Device& home, CommunicatorFactory& world,
               const MlpModel& model, int places, int microbatches)
      : model_(model),
        grid_(*ProcessGrid::Create({}, {}, /*rank=*/0)),
        communicators_(world, grid_),
        context_(device, grid_, communicators_),
        store_(device, DType::kFloat32, kSeed, ParameterStore::Allocate::kNone),
        chunk_(MakeChunk(store_)),
        inputs_(home, MemoryCategory::kActivations, "inputs of blocks") {
    FindSumAxes();
    const UnitHome blocks = {.device = &home, .begin = 0, .end = model.blocks};
    buckets_ = std::make_unique<ParameterBuckets>(
        context_, store_.parameters(), /*bucket_bytes=*/int64_t{1} << 30,
        DataSharding{}, blocks);
    UnitLayout largest;
    for (const auto& [unit, layout] :
         LayOutUnits(store_.parameters(), *buckets_, blocks,
                     UnitLayout::Where::kDevice)) {
      largest.GrowTo(layout);
    }
    places_ = std::make_unique<DeviceBuffers>(
        device, places, largest.Buffers(DType::kFloat32),
        MemoryCategory::kParameters, "place of a block's parameters");
    gradients_ = std::make_unique<DeviceBuffers>(
        device, Offload::kGradientBuffers,
        std::vector<DeviceBuffers::Buffer>{{largest.trained, DType::kFloat32},
                                           {}},
        MemoryCategory::kGradients, "gradients of a block");
    reducer_ =
        std::make_unique<GradientReducer>(context_, *buckets_, microbatches);
    units_ = std::make_unique<OffloadedUnits>(
        context_, store_.parameters(), blocks, *buckets_, *reducer_,
        OffloadedUnits::Buffers{
            .places = *places_, .gradients = *gradients_, .inputs = inputs_},
        kSeed);
    MakeOptimizer();
  }

  // Carries out lists of `program`, of one rank and one chunk, which outlives
  // it.
  std::unique_ptr<Executor> MakeExecutor(const Program& program) {
    return std::make_unique<Executor>(
        context_, program, /*pipeline_rank=*/0,
        std::vector<ExecutorChunk>{{.chunk = chunk_.get(),
                                    .reducer = reducer_.get(),
                                    .units = units_.get(),
                                    .program_units = program_units_}},
        optimizer_.get());
  }

  const CopiedBytes& copied() const { return units_->copied(); }

 private:
  static constexpr uint64_t kSeed = 3;

  std::unique_ptr<MlpChunk> MakeChunk(ParameterStore& store) const {
    return std::make_unique<MlpChunk>(store, grid_, model_, /*first=*/0,
                                      /*end=*/model_.blocks,
                                      /*first_sample=*/0,
                                      /*microbatch_size=*/1);
  }

  // From one forward, as a trainer does it.
  void FindSumAxes() {
    ParameterStore store(context_.device(), DType::kFloat32, kSeed);
    const std::unique_ptr<MlpChunk> chunk = MakeChunk(store);
    AllResident all;
    ChunkPass pass(context_, *chunk, all, /*microbatch=*/0);
    pass.Forward({});
    for (size_t i = 0; i < store.parameters().size(); ++i) {
      store_.parameters()[i]->gradient_sum_axes =
          store.parameters()[i]->gradient_sum_axes;
    }
  }

  void MakeOptimizer() {
    std::vector<std::vector<OwnedParameter>> owned;
    std::vector<StoredBucket> stored;
    program_units_.resize(model_.blocks);
    for (int b = 0; b < buckets_->size(); ++b) {
      const ParameterBucket& bucket = (*buckets_)[b];
      std::vector<OwnedParameter>& of_bucket = owned.emplace_back();
      stored.push_back({units_.get(), b});
      for (int p = 0; p < static_cast<int>(bucket.parameters.size()); ++p) {
        OwnedParameter& part = of_bucket.emplace_back();
        part.parameter = bucket.parameters[p];
        part.range = bucket.Owned(p);
        part.value = units_->OwnedValue(b, p);
        part.gradient =
            reducer_->OwnedGradient(b, p).Reshape(part.value.shape());
      }
      const int unit = bucket.parameters.front()->unit;
      program_units_[unit].begin = unit;
      program_units_[unit].end = unit + 1;
      program_units_[unit].buckets.push_back(b);
    }
    optimizer_ = std::make_unique<Optimizer>(context_, OptimizerOptions{},
                                             kSeed, std::move(owned),
                                             /*drive=*/nullptr, stored);
  }

  const MlpModel model_;
  ProcessGrid grid_;
  Communicators communicators_;
  ParallelContext context_;
  ParameterStore store_;
  std::unique_ptr<MlpChunk> chunk_;
  HostBuffers inputs_;
  std::unique_ptr<ParameterBuckets> buckets_;
  std::unique_ptr<DeviceBuffers> places_;
  std::unique_ptr<DeviceBuffers> gradients_;
  std::unique_ptr<GradientReducer> reducer_;
  std::unique_ptr<OffloadedUnits> units_;
  std::vector<ProgramUnit> program_units_;
  std::unique_ptr<Optimizer> optimizer_;
};

}  // namespace trireme

#endif  // TRIREME_TESTS_PARITY_OFFLOADED_MLP_H_
