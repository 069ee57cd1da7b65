// Memory of a job's blocks, embedding and head on one rank, for the planner: a
// few chunks are run for one microbatch on a dry device, whose arena counts.

#ifndef TRIREME_TRAINER_DRY_MEMORY_H_
#define TRIREME_TRAINER_DRY_MEMORY_H_

#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "scheduler/pieces/measured_memory.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/training_setup.h"

namespace trireme {

// `deferred`: weight gradients are put off (zero-bubble schedules).
MeasuredMemory MeasureMemory(const TrainingSetup& setup,
                             const BlockSplit& split, Plan::Recompute recompute,
                             bool deferred);

// Sets the shape's measured_memory to a function that measures each split once.
// Splits that the model cannot have give nothing.
void MeasureMemoryOf(const TrainingSetup& setup, ModelShape& shape);

}  // namespace trireme

#endif  // TRIREME_TRAINER_DRY_MEMORY_H_
