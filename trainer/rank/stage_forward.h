// Forward passes through all stages of a plan with nothing to go back: what
// samples, and what measures a model between steps.

#ifndef TRIREME_TRAINER_RANK_STAGE_FORWARD_H_
#define TRIREME_TRAINER_RANK_STAGE_FORWARD_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "parallel/sharding/unit_store.h"
#include "runtime/autograd/tape.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/schedules/schedule.h"
#include "trainer/rank/local_model.h"

namespace trireme {

class StageForward {
 public:
  // `plan`: resolved, without partial pipelines. `stores`: whoever brings the
  // parameters of each chunk's units. Model and stores outlive it.
  StageForward(LocalModel& model, const Plan& plan,
               std::vector<UnitStore*> stores);

  // Runs a microbatch of the model's inputs, one stage after the other, and
  // returns the losses that this rank's units add. Collective over the ranks of
  // a replica (of all, where replicas share parameters or experts).
  std::vector<Tape::Loss> Run(int64_t microbatch);

  // What this rank's units have reported since the last call.
  std::vector<Tape::Counts> TakeCounts() { return std::move(counts_); }

  // Of the pipeline, the rank with the last stage.
  int last_rank() const { return stages_.back().rank; }

 private:
  std::vector<ShardedVariable> RunChunk(int chunk, int64_t microbatch,
                                        std::vector<ShardedVariable> state);
  std::vector<ShardedVariable> Receive(int from, const Chunk& chunk);
  void Send(int to, const std::vector<ShardedVariable>& state);

  LocalModel& model_;
  std::vector<StageLocation> stages_;
  std::vector<UnitStore*> stores_;
  // Of the pass in progress.
  std::vector<Tape::Loss> losses_;
  // Of those that nobody has taken.
  std::vector<Tape::Counts> counts_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_RANK_STAGE_FORWARD_H_
