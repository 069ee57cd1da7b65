#include "trainer/model_shape_of.h"

namespace trireme {
ModelShape ModelShapeOf(const TrainingSetup& setup) {
  ModelShape shape = setup.family->Shape();
  shape.element_bytes = DTypeSize(setup.dtype);
  shape.dtype = DTypeName(setup.dtype);
  const bool masters = shape.element_bytes == 2;
  shape.gradient_bytes = setup.dtype == DType::kFloat64 ? 8 : 4;
  // Master weight, two moments and the average.
  shape.optimizer_bytes =
      shape.gradient_bytes *
      ((masters ? 3 : 2) + (setup.optimizer.ema_decay > 0 ? 1 : 0));
  return shape;
}

}  // namespace trireme
