// The random numbers that objectives draw for a sample of a batch, keyed by
// (seed, step, sample).

#ifndef TRIREME_MODELS_OBJECTIVE_SAMPLE_STREAMS_H_
#define TRIREME_MODELS_OBJECTIVE_SAMPLE_STREAMS_H_

#include <cstdint>
#include <string_view>

#include "models/batch.h"
#include "runtime/core/philox.h"
#include "runtime/device/tensor.h"

namespace trireme {

// Of the batch's sample i.
RandomStream StreamOf(uint64_t seed, const Batch& batch, int64_t i,
                      RandomPurpose purpose);

// The condition in `field`, with `none` for the samples that lose theirs, each
// with this probability (Objective::Condition).
Tensor DropConditions(uint64_t seed, const Batch& batch, std::string_view field,
                      int32_t none, double probability);

}  // namespace trireme

#endif  // TRIREME_MODELS_OBJECTIVE_SAMPLE_STREAMS_H_
