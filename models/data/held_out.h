// A data set in two shares: what is trained on, and what is held out to
// measure against.

#ifndef TRIREME_MODELS_DATA_HELD_OUT_H_
#define TRIREME_MODELS_DATA_HELD_OUT_H_

#include <cstdint>
#include <memory>

#include "models/data/dataset.h"

namespace trireme {

enum class Share { kTraining, kHeldOut };

// One share of `whole`, of which `count` samples (0 < count < whole's size) are
// held out: those whose index i crosses a multiple of size / count, so that
// they lie evenly in any order by class. Nothing but size and count decides it.
std::unique_ptr<Dataset> TakeShare(std::unique_ptr<Dataset> whole,
                                   int64_t count, Share share);

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_HELD_OUT_H_
