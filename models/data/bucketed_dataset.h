// A data set whose samples are read at the sizes of buckets.

#ifndef TRIREME_MODELS_DATA_BUCKETED_DATASET_H_
#define TRIREME_MODELS_DATA_BUCKETED_DATASET_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/data/buckets.h"
#include "models/data/dataset.h"

namespace trireme {

// The samples of `whole` that have a bucket, in its order, by the size of each
// (Dataset::ReadSizes). Samples whose size cannot be read, and with
// kLeaveOut those that are smaller than every size, are left out, counted and,
// the first of them, named in the log. `sizes` are sorted (SortSizes).
// IndexHash changes with any sample's bucket. Errors, in the words of the job's
// data.buckets: with kRefuse, how many are smaller and the first of them; no
// sample left.
absl::StatusOr<std::unique_ptr<Dataset>> PutIntoBuckets(
    std::unique_ptr<Dataset> whole, std::vector<PictureSize> sizes,
    SmallerPictures smaller);

// How many samples are smaller than every one of `sizes`, and the first of
// them: "NAME of HxW". Reads the header of every picture; what cannot be read
// does not count.
struct SmallerSamples {
  int64_t count = 0;
  std::string first;
};
SmallerSamples FindSmaller(const Dataset& samples,
                           std::span<const PictureSize> sizes);

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_BUCKETED_DATASET_H_
