// What an autoencoder of shapes is shown of a shape, drawn anew each time that
// it is read (Sample::draw): points on its surface, and queries with distances.

#ifndef TRIREME_MODELS_DATA_SURFACE_DRAWS_H_
#define TRIREME_MODELS_DATA_SURFACE_DRAWS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "models/data/dataset.h"

namespace trireme {

// [points, 6] of kSurfaceField: different points of the sample's, of which the
// first `apart` are the farthest points among four times as many. Errors: a
// sample with fewer points.
absl::StatusOr<std::vector<float>> DrawSurface(const Sample& sample,
                                               int64_t points, int64_t apart);

// [queries, 7] of kQueriesField: a quarter on the surface, half near it, the
// rest anywhere. Errors: a sample without distances.
absl::StatusOr<std::vector<float>> DrawQueries(const Sample& sample,
                                               int64_t queries);

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_SURFACE_DRAWS_H_
