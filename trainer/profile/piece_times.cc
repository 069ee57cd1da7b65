#include "trainer/profile/piece_times.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "parallel/executor/chunk_pass.h"
#include "parallel/grid/process_grid.h"
#include "runtime/comm/stand_in.h"
#include "runtime/core/status.h"
#include "runtime/device/compute_device.h"
#include "runtime/ops/random.h"
#include "trainer/profile/profile_statistics.h"
#include "trainer/rank/local_model.h"

namespace trireme {
namespace {

constexpr int kLargestMicrobatch = 8;

ChunkRequest PartOf(const TrainingSetup& setup, const PieceSplit& split,
                    const ModelPiece& piece) {
  ChunkRequest options;
  const int64_t layers = setup.family->Shape().layers;
  options.embedding = piece == ModelPiece::kEmbedding;
  options.head = piece == ModelPiece::kHead;
  if (piece.kind == ModelPiece::kBlock) {
    const int64_t first = FirstBlockOf(setup.family->Shape(), piece.block_kind);
    options.blocks = {.first = first, .end = first + 1};
  }
  if (piece == ModelPiece::kHead) {
    options.blocks = {.first = layers, .end = layers};
  }
  options.sequence_parallel = split.sequence_parallel;
  options.microbatch_size = split.microbatch_size;
  return options;
}

// Seconds of the device's compute stream since the last call, without what the
// stand-ins for other ranks took meanwhile.
class ComputeClock {
 public:
  ComputeClock(Device& device, const StandInWorld& world)
      : device_(device), world_(world) {
    device.Synchronize();
    communication_s_ = world.seconds();
    start_ = device.stream().Mark();
  }
  double Lap() {
    const std::shared_ptr<StreamMark> end = device_.stream().Mark();
    // Of all streams: the stand-ins work on another.
    device_.Synchronize();
    const double communication_s = world_.seconds();
    const double seconds =
        end->SecondsSince(*start_) - (communication_s - communication_s_);
    communication_s_ = communication_s;
    start_ = device_.stream().Mark();
    return seconds;
  }

 private:
  Device& device_;
  const StandInWorld& world_;
  double communication_s_ = 0;
  std::shared_ptr<StreamMark> start_;
};

// Normal numbers where they are floating, which a GPU multiplies at the clock
// of training: zeros let it go faster. Counts and places are zero.
void FillTypically(const std::vector<Tensor>& tensors) {
  for (const Tensor& tensor : tensors) {
    if (!IsFloating(tensor.dtype())) {
      tensor.FillZero();
      continue;
    }
    const ElementRun all[] = {{.count = tensor.num_elements()}};
    FillRandom(RandomStream({.seed = 1}), Distribution::kNormal, /*scale=*/1,
               all, tensor);
  }
}

// One piece with its parameters and gradients.
class PieceRunner {
 public:
  PieceRunner(const TrainingSetup& setup, const PieceSplit& split,
              const ModelPiece& piece, const ProcessGrid& grid, Device& device)
      : world_(0, grid.num_ranks()),
        model_(setup, grid, world_, {}, {{PartOf(setup, split, piece)}},
               device) {
    model_.MakeGradients();
    if (model_.delayed_scaling() != nullptr) {
      model_.delayed_scaling()->AssumeHistories();
    }
    model_.inputs().Set(
        TypicalBatch(device, model_.Fields(), split.microbatch_size),
        *setup.objective);
  }

  // One microbatch.
  PieceSeconds Run() {
    Chunk& chunk = *model_.part().chunk;
    const auto values = [&](int unit) {
      std::vector<Tensor> tensors =
          EmptyBoundary(model_.device(), chunk.Boundary(unit));
      FillTypically(tensors);
      return tensors;
    };
    AllResident store;
    ChunkPass pass(model_.context(), chunk, store, /*microbatch=*/0);
    std::vector<Tensor> inputs = values(0);
    std::vector<Tensor> gradients = values(chunk.num_units());
    PieceSeconds seconds;
    ComputeClock clock(model_.device(), world_);
    pass.Forward(std::move(inputs));
    seconds.forward_s = clock.Lap();
    pass.Backward(std::move(gradients), Tape::WeightGradients::kDeferred);
    const double input_s = clock.Lap();
    pass.BackwardWeight();
    seconds.backward_weight_s = clock.Lap();
    seconds.backward_s = input_s + seconds.backward_weight_s;
    return seconds;
  }

  absl::Status status() const { return model_.status(); }

 private:
  StandInWorld world_;
  LocalModel model_;
};

// Bytes that a microbatch through the piece needs.
absl::StatusOr<int64_t> BytesOf(const TrainingSetup& setup,
                                const PieceSplit& split,
                                const ModelPiece& piece,
                                const ProcessGrid& grid, DeviceKind kind) {
  const std::unique_ptr<Device> dry =
      MakeDryDevice(kind, setup.kernel_libraries);
  PieceRunner runner(setup, split, piece, grid, *dry);
  runner.Run();
  RETURN_IF_ERROR(runner.status());
  return dry->Statistics().peak_bytes;
}

double MedianOf(const std::vector<PieceSeconds>& times,
                double PieceSeconds::*field) {
  std::vector<double> values;
  values.reserve(times.size());
  for (const PieceSeconds& time : times) values.push_back(time.*field);
  return Median(std::move(values));
}

// Those whose parts make up the whole, in fields' order.
PieceSeconds MedianOf(const std::vector<PieceSeconds>& times) {
  PieceSeconds median;
  median.forward_s = MedianOf(times, &PieceSeconds::forward_s);
  median.backward_s = MedianOf(times, &PieceSeconds::backward_s);
  median.backward_weight_s = std::min(
      median.backward_s, MedianOf(times, &PieceSeconds::backward_weight_s));
  return median;
}

}  // namespace

std::vector<PieceSplit> SplitsToTime(const TrainingSetup& setup, int ranks,
                                     int in_node) {
  const ModelShape model = setup.family->Shape();
  std::vector<PieceSplit> ways = {{}};
  for (int tp = 2; tp <= in_node; tp *= 2) {
    if (model.heads % tp != 0 || model.mlp_hidden % tp != 0) break;
    ways.push_back({.tp = tp});
    if (!model.sequence_parallel) continue;
    ways.push_back({.tp = tp, .sequence_parallel = true});
  }
  for (int cp = 2; model.context_parallel && cp <= ranks; cp *= 2) {
    ways.push_back({.cp = cp});
  }
  std::vector<PieceSplit> splits;
  for (PieceSplit split : ways) {
    for (int size = 1; size <= kLargestMicrobatch; size *= 2) {
      if (setup.global_batch % size != 0) break;
      split.microbatch_size = size;
      splits.push_back(split);
    }
  }
  return splits;
}

absl::StatusOr<PieceSeconds> TimePiece(const TrainingSetup& setup,
                                       const PieceSplit& split,
                                       const ModelPiece& piece, int repetitions,
                                       Device& device) {
  ASSIGN_OR_RETURN(const ProcessGrid grid,
                   ProcessGrid::Create({.tp = split.tp, .cp = split.cp}, {},
                                       /*world_rank=*/0));
  ASSIGN_OR_RETURN(const int64_t needed,
                   BytesOf(setup, split, piece, grid, DeviceKindOf(device)));
  const MemoryStatistics memory = device.Statistics();
  if (needed > memory.limit_bytes - memory.current_bytes) {
    return ResourceExhausted("a microbatch of {} needs {} of {}",
                             split.microbatch_size, BytesText(needed),
                             BytesText(memory.limit_bytes));
  }
  PieceRunner runner(setup, split, piece, grid, device);
  runner.Run();
  std::vector<PieceSeconds> times;
  std::vector<double> sums;
  for (int i = 0; i < repetitions; ++i) {
    times.push_back(runner.Run());
    sums.push_back(times.back().forward_s + times.back().backward_s);
  }
  RETURN_IF_ERROR(runner.status());
  PieceSeconds median = MedianOf(times);
  median.spread = Spread(sums);
  return median;
}

std::vector<NodePieceSeconds> TimePieces(const TrainingSetup& setup,
                                         const std::vector<PieceSplit>& splits,
                                         int repetitions, Device& device,
                                         Communicator& world,
                                         std::span<const int> node_of) {
  std::vector<NodePieceSeconds> found;
  const std::vector<ModelPiece> pieces = PiecesIn(setup.family->Shape());
  for (const PieceSplit& split : splits) {
    for (const ModelPiece& piece : pieces) {
      world.Barrier("profile piece");
      const absl::StatusOr<PieceSeconds> own =
          TimePiece(setup, split, piece, repetitions, device);
      const PieceSeconds seconds = own.ok() ? *own : PieceSeconds();
      const std::vector<std::vector<double>> rows =
          GatherRows(world, {seconds.forward_s, seconds.backward_s,
                             seconds.backward_weight_s, seconds.spread});
      if (world.rank() != 0) continue;
      for (int node = 0; node <= node_of.back(); ++node) {
        std::vector<PieceSeconds> ranks;
        for (size_t rank = 0; rank < rows.size(); ++rank) {
          const std::vector<double>& row = rows[rank];
          if (node_of[rank] != node) continue;
          ranks.push_back({row[0], row[1], row[2], row[3]});
        }
        PieceSeconds median = MedianOf(ranks);
        const bool all = std::all_of(
            ranks.begin(), ranks.end(), [](const PieceSeconds& time) {
              return time.forward_s > 0 && time.backward_s > 0;
            });
        if (!all) continue;
        for (const PieceSeconds& time : ranks) {
          median.spread = std::max(median.spread, time.spread);
        }
        found.push_back({node, split, piece, median});
      }
    }
  }
  return found;
}

}  // namespace trireme
