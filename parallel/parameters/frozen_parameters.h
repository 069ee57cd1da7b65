// Values of parameters that do not train, in the format in which they are kept
// (Parameter::format).

#ifndef TRIREME_PARALLEL_PARAMETERS_FROZEN_PARAMETERS_H_
#define TRIREME_PARALLEL_PARAMETERS_FROZEN_PARAMETERS_H_

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "runtime/autograd/parameter.h"
#include "runtime/device/device.h"
#include "runtime/ops/quantization.h"

namespace trireme {

// How this rank's part of a parameter that is quantised is laid out.
QuantizedMatrix QuantizedLayout(const Parameter& parameter);

// Writes Parameter::value of what it is given, all of it.
using FillValue = std::function<absl::Status(Parameter& parameter)>;

// Has `fill` write the parameter's values where they lie: value, or quantized.
// Of a parameter that is quantised `fill` is given the rows of which this rank
// has columns, whole and in the host's memory. Returns what quantising changed
// of this rank's part. Errors: fill's.
absl::StatusOr<QuantizationError> FillFrozen(Parameter& parameter,
                                             const FillValue& fill);

// Writes the initial values of `seed`.
void InitializeFrozen(uint64_t seed, Parameter& parameter);

// Allocates the parameter's part on the device, in its format, with its initial
// values of `seed`.
void MakeValues(Device& device, uint64_t seed, Parameter& parameter);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_PARAMETERS_FROZEN_PARAMETERS_H_
