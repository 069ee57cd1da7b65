#include "trainer/rank/stage_forward.h"

#include <iterator>
#include <map>
#include <utility>

#include "parallel/executor/staying_skips.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

// Of all messages between stages: those of one pair match by their order.
constexpr int kTag = 0;

}  // namespace

StageForward::StageForward(LocalModel& model, const Plan& plan,
                           std::vector<UnitStore*> stores)
    : model_(model), stages_(StagesOf(plan)), stores_(std::move(stores)) {
  CHECK_EQ(stores_.size(), model.parts().size());
}

std::vector<Tape::Loss> StageForward::Run(int64_t microbatch) {
  const int own = model_.grid().coordinate(Axis::kPipeline);
  std::vector<ShardedVariable> state;
  std::map<int64_t, ShardedVariable> staying;
  for (size_t stage = 0; stage < stages_.size(); ++stage) {
    if (stages_[stage].rank != own) continue;
    const int index = stages_[stage].chunk;
    const Chunk& chunk = *model_.parts()[index].chunk;
    if (stage > 0 && stages_[stage - 1].rank != own) {
      state = Receive(stages_[stage - 1].rank, chunk);
    }
    state = JoinStaying(chunk.Boundary(0), std::move(state), staying);
    state = RunChunk(index, microbatch, std::move(state));
    state = LeaveStaying(chunk.Boundary(chunk.num_units()), std::move(state),
                         staying);
    if (stage + 1 < stages_.size() && stages_[stage + 1].rank != own) {
      Send(stages_[stage + 1].rank, state);
      state.clear();
    }
  }
  return std::exchange(losses_, {});
}

std::vector<ShardedVariable> StageForward::RunChunk(
    int chunk, int64_t microbatch, std::vector<ShardedVariable> state) {
  Chunk& units = *model_.parts()[chunk].chunk;
  UnitStore& store = *stores_[chunk];
  Tape tape(model_.device(), Tape::Mode::kInference);
  ForwardContext context{tape, model_.context()};
  for (int unit = 0; unit < units.num_units(); ++unit) {
    store.Fetch(unit);
    store.Bring(unit);
    state = units.RunUnit(context, microbatch, unit, std::move(state));
    store.Drop(unit);
    store.Release(unit);
  }
  std::vector<Tape::Loss> losses = tape.TakeLosses();
  std::move(losses.begin(), losses.end(), std::back_inserter(losses_));
  std::vector<Tape::Counts> counts = tape.TakeCounts();
  std::move(counts.begin(), counts.end(), std::back_inserter(counts_));
  return state;
}

std::vector<ShardedVariable> StageForward::Receive(int from,
                                                   const Chunk& chunk) {
  Communicator& channel = model_.communicators().PipelineReceive(from);
  std::vector<ShardedVariable> state;
  for (const BoundarySpec& spec : Travelling(chunk.Boundary(0))) {
    const Tensor tensor =
        Tensor::Empty(model_.device(), spec.shape, spec.dtype,
                      MemoryCategory::kActivations, "received activation");
    channel.Receive(tensor, Communicators::kSender, kTag, "activation").Wait();
    state.push_back({Variable(tensor), spec.states});
  }
  return state;
}

void StageForward::Send(int to, const std::vector<ShardedVariable>& state) {
  Communicator& channel = model_.communicators().PipelineSend(to);
  for (const ShardedVariable& tensor : state) {
    channel.Send(tensor.value(), Communicators::kReceiver, kTag, "activation")
        .Wait();
  }
}

}  // namespace trireme
