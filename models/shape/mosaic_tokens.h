// Mosaics as a flow model learns them: tokens whose channels have a mean of
// about 0 and a standard deviation of about 1, whatever the shapes, but 2 for a
// centre: three channels among a hundred, on which all others depend, are seen
// through more noise than those, and count four times in the loss.
//
//   (p / 0.2, log(s √n / 1.3) / 0.25, V / (0.5 s))
//
// for the centre p, the scale s and the values V of each of n cubes. The
// constants follow from what mosaics are: shapes lie within ±0.95, a surface is
// covered by cubes of a size that falls with the root of their number, and
// distances in a cube go with its size.

#ifndef TRIREME_MODELS_SHAPE_MOSAIC_TOKENS_H_
#define TRIREME_MODELS_SHAPE_MOSAIC_TOKENS_H_

#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "models/shape/mosaic_sdf.h"

namespace trireme {

// Of tokens [n, 4 + resolution³] as MosaicTokens gives them.
std::vector<float> StandardizeMosaic(std::span<const float> tokens,
                                     int resolution);

// The reverse, of whatever a model makes: scales are brought to between 2^-10
// and 1. Errors: values that are not finite or whose number does not fit.
absl::StatusOr<MosaicSdf> MosaicFromStandard(std::span<const float> tokens,
                                             int resolution);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_MOSAIC_TOKENS_H_
