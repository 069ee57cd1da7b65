// A job's block, embedding and head as the planner costs them, recorded: a few
// chunks run for one microbatch on a dry device, whose arena and communicators
// count what they are asked for.

#ifndef TRIREME_TRAINER_RECORDED_PIECES_H_
#define TRIREME_TRAINER_RECORDED_PIECES_H_

#include "scheduler/pieces/model_pieces.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/training_setup.h"

namespace trireme {

// `deferred`: weight gradients are put off (zero-bubble schedules).
ModelPieces RecordPieces(const TrainingSetup& setup, const BlockSplit& split,
                         Plan::Recompute recompute, bool deferred);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RECORDED_PIECES_H_
