#include "runtime/ops/adamw.h"

#include <cmath>

#include "runtime/core/log.h"
#include "runtime/ops/kernels.h"

namespace trireme {

void AdamWStep(const AdamWOptions& options, const Tensor& grad,
               const Tensor& master, const Tensor& m, const Tensor& v,
               const Tensor& value, const Tensor& average) {
  const int64_t n = master.num_elements();
  for (const Tensor* tensor : {&grad, &m, &v, &value}) {
    CHECK_EQ(tensor->num_elements(), n);
  }
  for (const Tensor* tensor : {&grad, &m, &v}) {
    CHECK_EQ(tensor->dtype(), master.dtype());
  }
  if (average.defined()) {
    CHECK_EQ(average.num_elements(), n);
    CHECK_EQ(average.dtype(), master.dtype());
  }
  CHECK(!IsHalf(master.dtype()));
  CHECK_GE(options.step, 1);
  Device& device = master.device();
  const double t = static_cast<double>(options.step);
  device.kernels().optimizer.adamw(
      device.stream(),
      {.dtype = master.dtype(),
       .value_dtype = value.dtype(),
       .n = n,
       .learning_rate = options.learning_rate,
       .beta1 = options.beta1,
       .beta2 = options.beta2,
       .eps = options.eps,
       .weight_decay = options.weight_decay,
       .correction1 = 1.0 / (1.0 - std::pow(options.beta1, t)),
       .correction2 = 1.0 / (1.0 - std::pow(options.beta2, t)),
       .gradient_scale = options.gradient_scale,
       .averages = average.defined(),
       .ema_decay = options.ema_decay,
       .grad = grad.raw_data(),
       .master = master.raw_data(),
       .m = m.raw_data(),
       .v = v.raw_data(),
       .value = value.raw_data(),
       .average = average.defined() ? average.raw_data() : nullptr});
}

void EmaStep(double decay, const Tensor& master, const Tensor& average) {
  CHECK_EQ(master.num_elements(), average.num_elements());
  CHECK_EQ(master.dtype(), average.dtype());
  Device& device = master.device();
  device.kernels().optimizer.ema(device.stream(), master.dtype(),
                                 master.num_elements(), decay,
                                 master.raw_data(), average.raw_data());
}

}  // namespace trireme
