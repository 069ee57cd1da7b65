// A job's model as the planner sees it.

#ifndef TRIREME_TRAINER_MODEL_SHAPE_OF_H_
#define TRIREME_TRAINER_MODEL_SHAPE_OF_H_

#include "scheduler/pieces/model_shape.h"
#include "trainer/training_setup.h"

namespace trireme {

// With recorded_pieces (trainer/recorded_pieces.h), which runs each split once
// and keeps what it found.
ModelShape ModelShapeOf(const TrainingSetup& setup);

}  // namespace trireme

#endif  // TRIREME_TRAINER_MODEL_SHAPE_OF_H_
