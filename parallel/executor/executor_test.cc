// The executor on models that are no DiT: the same losses and gradients on
// every grid, whatever units carry, keep and add to the objective.

#include "parallel/executor/executor.h"

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/executor/mlp_model_testing.h"
#include "parallel/sharding/parameter_buckets.h"
#include "parallel/sharding/parameter_shards.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/plan/plan.h"
#include "scheduler/program/compile.h"

namespace trireme {
namespace {

constexpr int64_t kBatch = 8;
constexpr int64_t kMicrobatch = 1;
constexpr int kSteps = 3;

// A model and how it is trained.
struct Setting {
  MlpModel model;
  int tp = 1;
  int pp = 1;
  int dp = 1;
  Plan::Schedule schedule = Plan::ONE_F_ONE_B;
  DataSharding::Level sharding = DataSharding::Level::kReplicated;
  DType dtype = DType::kFloat64;

  int ranks() const { return tp * pp * dp; }
};

struct Step {
  std::map<std::string, double> losses;
  double gradient_norm = 0;
};

Plan PlanOf(const Setting& run) {
  Plan plan;
  plan.mutable_grid()->set_tp(run.tp);
  plan.mutable_grid()->set_pp(run.pp);
  plan.mutable_grid()->set_dp(run.dp);
  plan.set_schedule(run.schedule);
  plan.set_microbatch_size(kMicrobatch);
  using Level = DataSharding::Level;
  plan.set_sharding(run.sharding == Level::kGradients    ? Plan::GRADIENTS
                    : run.sharding == Level::kParameters ? Plan::PARAMETERS
                                                         : Plan::REPLICATED);
  const absl::StatusOr<Plan> resolved =
      ResolvePlan(plan, {.world_size = run.ranks(),
                         .global_batch = kBatch,
                         .num_blocks = run.model.blocks});
  CHECK_OK(resolved.status());
  return *resolved;
}

// One rank's model and all it trains with.
class Rank {
 public:
  Rank(const Setting& run, Device& device, CommunicatorFactory& factory)
      : plan_(PlanOf(run)),
        grid_(*ProcessGrid::Create({.tp = run.tp, .dp = run.dp, .pp = run.pp},
                                   {}, factory.world_rank())),
        communicators_(factory, grid_, {.shard_group = ShardingOf(run).group}),
        context_(device, grid_, communicators_),
        store_(device, run.dtype, /*seed=*/3,
               run.sharding == DataSharding::Level::kParameters
                   ? ParameterStore::Allocate::kFrozen
                   : ParameterStore::Allocate::kAll) {
    const int64_t local_batch = kBatch / run.dp;
    const int stage = grid_.coordinate(Axis::kPipeline);
    const int blocks = run.model.blocks / run.pp;
    const auto make = [&](ParameterStore& store) {
      return std::make_unique<MlpChunk>(
          store, grid_, run.model, stage * blocks, (stage + 1) * blocks,
          local_batch * grid_.coordinate(Axis::kData), kMicrobatch);
    };
    chunk_ = make(store_);
    FindSumAxes(make);
    buckets_ = std::make_unique<ParameterBuckets>(
        context_, store_.parameters(), /*bucket_bytes=*/4096, ShardingOf(run));
    shards_ = std::make_unique<ParameterShards>(context_, *buckets_, 3);
    reducer_ = std::make_unique<GradientReducer>(
        context_, *buckets_, static_cast<int>(plan_.microbatches()));
    std::vector<std::vector<OwnedParameter>> owned(buckets_->size());
    for (int b = 0; b < buckets_->size(); ++b) {
      const ParameterBucket& bucket = (*buckets_)[b];
      for (int p = 0; p < static_cast<int>(bucket.parameters.size()); ++p) {
        if (bucket.Owned(p).size() == 0) continue;
        OwnedParameter& part = owned[b].emplace_back();
        part.parameter = bucket.parameters[p];
        part.range = bucket.Owned(p);
        part.value = shards_->OwnedValue(b, p);
        part.gradient =
            reducer_->OwnedGradient(b, p).Reshape(part.value.shape());
      }
    }
    optimizer_ = std::make_unique<Optimizer>(context_, OptimizerOptions{}, 3,
                                             std::move(owned));
    CompileOptions options;
    options.buckets_per_stage.assign(run.pp, 1);
    options.buckets_per_stage[stage] = buckets_->size();
    const absl::StatusOr<Program> program = CompilePlan(plan_, options);
    CHECK_OK(program.status());
    program_ = std::make_unique<Program>(*program);
    executor_ = std::make_unique<Executor>(
        context_, *program_, stage,
        std::vector<ExecutorChunk>{{.chunk = chunk_.get(),
                                    .reducer = reducer_.get(),
                                    .units = shards_.get()}},
        optimizer_.get());
  }

  // Not before all ranks have taken part in what this one has begun: its
  // tensors go with its device.
  ~Rank() { communicators_.world().Barrier("end of a test"); }

  StepResult Train(int64_t step) {
    const absl::StatusOr<StepResult> result =
        executor_->RunStep({.step = step, .learning_rate = 0.01});
    CHECK_OK(result.status());
    CHECK_OK(context_.status());
    return *result;
  }

  const ParameterStore& store() const { return store_; }

 private:
  static DataSharding ShardingOf(const Setting& run) {
    return {
        .level = run.sharding,
        .group = run.sharding == DataSharding::Level::kReplicated ? 1 : run.dp};
  }

  // From one forward, as a trainer does it on a dry device.
  template <typename Make>
  void FindSumAxes(const Make& make) {
    ParameterStore store(context_.device(), store_.dtype(), 3);
    const std::unique_ptr<MlpChunk> chunk = make(store);
    AllResident all;
    ChunkPass pass(context_, *chunk, all, /*microbatch=*/0);
    std::vector<Tensor> inputs =
        EmptyBoundary(context_.device(), chunk->Boundary(0));
    for (const Tensor& input : inputs) input.FillZero();
    pass.Forward(std::move(inputs));
    CHECK_OK(context_.status());
    for (size_t i = 0; i < store.parameters().size(); ++i) {
      store_.parameters()[i]->gradient_sum_axes =
          store.parameters()[i]->gradient_sum_axes;
    }
  }

  Plan plan_;
  ProcessGrid grid_;
  Communicators communicators_;
  ParallelContext context_;
  ParameterStore store_;
  std::unique_ptr<MlpChunk> chunk_;
  std::unique_ptr<ParameterBuckets> buckets_;
  std::unique_ptr<ParameterShards> shards_;
  std::unique_ptr<GradientReducer> reducer_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Program> program_;
  std::unique_ptr<Executor> executor_;
};

std::vector<Step> Train(const Setting& run) {
  std::vector<Step> steps(kSteps);
  std::mutex mutex;
  RunThreadRanks(run.ranks(), [&](CommunicatorFactory& factory, int) {
    CpuDevice device(1 << 28);
    Rank rank(run, device, factory);
    for (int i = 0; i < kSteps; ++i) {
      const StepResult result = rank.Train(i + 1);
      const std::lock_guard lock(mutex);
      for (const auto& [name, loss] : result.losses) {
        steps[i].losses[name] += loss;
      }
      steps[i].gradient_norm = result.gradient_norm;
    }
  });
  return steps;
}

void ExpectSame(const std::vector<Step>& expected,
                const std::vector<Step>& found) {
  for (int i = 0; i < kSteps; ++i) {
    SCOPED_TRACE(i);
    ASSERT_EQ(found[i].losses.size(), expected[i].losses.size());
    for (const auto& [name, loss] : expected[i].losses) {
      ASSERT_TRUE(found[i].losses.contains(name)) << name;
      EXPECT_NEAR(found[i].losses.at(name), loss, 1e-11 * loss) << name;
    }
    EXPECT_NEAR(found[i].gradient_norm, expected[i].gradient_norm,
                1e-11 * expected[i].gradient_norm);
  }
}

// An auxiliary loss of a block in the middle: on every grid counted once and
// felt by all that comes before it.
TEST(ExecutorTest, AnAuxiliaryLossIsTheSameOnEveryGrid) {
  const MlpModel model{.auxiliary_block = 1};
  const std::vector<Step> reference = Train({.model = model});
  ASSERT_EQ(reference[0].losses.size(), size_t{2});
  EXPECT_GT(reference[0].losses.at("auxiliary"), 0);
  const std::vector<Step> without = Train({});
  EXPECT_NE(without[0].gradient_norm, reference[0].gradient_norm);
  EXPECT_EQ(without[0].losses.at("loss"), reference[0].losses.at("loss"));
  EXPECT_NE(without[2].losses.at("loss"), reference[2].losses.at("loss"));

  MlpModel recompute = model;
  recompute.recompute = true;
  using Level = DataSharding::Level;
  for (const Setting& run : {
           Setting{.model = recompute},
           Setting{.model = model, .tp = 2},
           Setting{.model = recompute, .tp = 2, .dp = 2},
           Setting{.model = model, .pp = 2},
           Setting{.model = recompute, .pp = 2},
           Setting{.model = model, .pp = 2, .schedule = Plan::ZB_H1},
           Setting{.model = model, .tp = 2, .pp = 2, .dp = 2},
           Setting{.model = model, .dp = 2, .sharding = Level::kGradients},
           Setting{.model = model, .dp = 2, .sharding = Level::kParameters},
           Setting{.model = recompute, .dp = 2, .sharding = Level::kParameters},
       }) {
    SCOPED_TRACE(fmt::format("tp {} pp {} dp {} recompute {} sharding {}",
                             run.tp, run.pp, run.dp, run.model.recompute,
                             static_cast<int>(run.sharding)));
    ExpectSame(reference, Train(run));
  }
}

// Skip connections of a U across stages: more tensors than any fixed number.
TEST(ExecutorTest, ABoundaryCarriesAnyNumberOfTensors) {
  const MlpModel model{.blocks = 24};
  ExpectSame(Train({.model = model}), Train({.model = model, .pp = 2}));
}

// What does not train has no gradient, no moments and no bucket; the gradients
// of all else are what they were.
TEST(ExecutorTest, ParametersThatDoNotTrainCostNothing) {
  struct Found {
    std::map<std::string, std::vector<double>> gradients;
    std::map<MemoryCategory, int64_t> bytes;
    std::vector<double> first_weight;
  };
  const auto train = [](int first_trained) {
    Found found;
    RunThreadRanks(1, [&](CommunicatorFactory& factory, int) {
      CpuDevice device(1 << 28);
      Rank rank({.model = {.first_trained_block = first_trained}}, device,
                factory);
      rank.Train(1);
      for (const auto& parameter : rank.store().parameters()) {
        if (parameter->name == "blocks.0.in.weight") {
          found.first_weight = parameter->value.ToVector<double>();
        }
        if (!parameter->grad.defined()) continue;
        found.gradients[parameter->name] = parameter->grad.ToVector<double>();
      }
      const MemoryStatistics statistics = device.Statistics();
      for (const MemoryCategory category :
           {MemoryCategory::kGradients, MemoryCategory::kOptimizer,
            MemoryCategory::kActivations}) {
        found.bytes[category] =
            statistics.peak_by_category[static_cast<int>(category)];
      }
    });
    return found;
  };
  const Found all = train(0);
  const Found half = train(2);
  EXPECT_EQ(all.gradients.size(), size_t{16});
  EXPECT_EQ(half.gradients.size(), size_t{8});
  for (const auto& [name, gradient] : half.gradients) {
    EXPECT_EQ(gradient, all.gradients.at(name)) << name;
  }
  EXPECT_NE(all.first_weight, half.first_weight);
  for (const auto& [category, bytes] : half.bytes) {
    EXPECT_LT(bytes, all.bytes.at(category)) << MemoryCategoryName(category);
  }
  // Blocks are alike: half of them have half of the gradients and moments.
  EXPECT_EQ(2 * half.bytes.at(MemoryCategory::kOptimizer),
            all.bytes.at(MemoryCategory::kOptimizer));
}

}  // namespace
}  // namespace trireme
