// What the simulator says of a training step whose instructions cost what they
// were measured to cost.
//
// Measured, as means over the ranks of a stage: each chunk's forward and
// backward (their halves where the schedule splits them) with the collectives
// and waits for shards inside; its updates; what its gradient reductions leave
// exposed behind the last backward; clipping; and, before the first step, a
// message over each link. Not measured but simulated: who waits for whom, and
// so the step.
//
// Stages that share processors cost processor time, not wall time, which would
// contain the waits for one. The simulated pipeline then has the part of the
// host's processors that its ranks have among the ranks of all pipelines. Ranks
// of one stage all run it at once, so that its wall time is what it takes.

#ifndef TRIREME_TRAINER_METRICS_SIMULATED_STEP_H_
#define TRIREME_TRAINER_METRICS_SIMULATED_STEP_H_

#include <optional>
#include <vector>

#include "parallel/executor/executor.h"
#include "runtime/core/processors.h"
#include "scheduler/simulator/cost_model.h"
#include "scheduler/simulator/trace.h"
#include "trainer/rank/rank_model.h"

namespace trireme {

struct SimulatedStep {
  double step_s = 0;
  // Mean over ranks; if messages took no time.
  double bubble_s = 0;
};

class StepSimulator {
 public:
  // Sends messages over the model's links to measure them: collective over the
  // world. `model` outlives the simulator.
  StepSimulator(RankModel& model, const ProcessorShare& share);

  // StepOptions::processor_threads of the steps that it is to simulate.
  int processor_threads() const {
    return shares_processors() ? share_.threads : 0;
  }

  // Of a step with these costs on this rank and `before_s` before it (reading
  // of the batch). Collective over the world; the result is rank 0's, none on
  // others. None either for a partial pipeline, what whose order implies is not
  // told from its messages; nor where a cost was measured that none can be,
  // which is logged. `trace`: gets the simulated step's events on rank 0.
  std::optional<SimulatedStep> Simulate(
      const StepCosts& costs, double before_s,
      std::vector<TraceEvent>* trace = nullptr) const;

 private:
  bool shares_processors() const {
    return share_.crowded() && model_.program().num_ranks() > 1;
  }
  void MeasureLinks();
  // There and back between this rank and a neighbouring stage's, which has the
  // other of the two calls. Seconds of one way.
  double SendAndReceive(int peer, const std::vector<BoundarySpec>& specs) const;
  void ReceiveAndSend(int peer, const std::vector<BoundarySpec>& specs) const;
  // One message from or to the peer.
  void Exchange(int peer, const std::vector<BoundarySpec>& specs,
                bool send) const;

  RankModel& model_;
  const ProcessorShare share_;
  // link_s_[sender * stages + receiver] of pipeline ranks; 0 where none is.
  std::vector<double> link_s_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_METRICS_SIMULATED_STEP_H_
