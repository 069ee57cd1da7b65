// Sizes at which pictures of unlike shapes are trained on, a bucket each
// (NovelAI, "Improvements on Stable Diffusion", 2022, aspect ratio bucketing).

#ifndef TRIREME_MODELS_DATA_BUCKETS_H_
#define TRIREME_MODELS_DATA_BUCKETS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/image/picture_size.h"

namespace trireme {

// Of a data set: sizes, numbered from the one with most pixels on, and which
// sample is read at which.
struct Buckets {
  std::vector<PictureSize> sizes;
  // By bucket, its samples by their index in the data set, in order.
  std::vector<std::vector<int64_t>> samples;
  // By sample, its bucket.
  std::vector<int32_t> of_sample;
  // What has no bucket and is no sample of the data set: its name, and why.
  struct LeftOut {
    std::string name;
    std::string why;
  };
  std::vector<LeftOut> left_out;
};

// What becomes of a picture that covers none of the sizes.
enum class SmallerPictures { kRefuse, kLeaveOut, kEnlarge };

// In the order of Buckets: the most pixels first; of as many, the squarest,
// then the tallest; each once.
void SortSizes(std::vector<PictureSize>& sizes);

// As trainers of latent diffusion make them: for each width that is a multiple
// of `step` the tallest multiple of it with at most side² pixels together, and
// the same lying; sides are to each other as 1 to at most `max_ratio`. Sorted;
// empty where `side` is less than `step`.
std::vector<PictureSize> SizesOfArea(int64_t side, int64_t step,
                                     double max_ratio);

// The bucket of a picture: of the sizes that it covers, so that it need not be
// enlarged, the one that shows most of it: its pixels times the share of the
// picture that it keeps after the crop (models/image/resize.h). Among sizes
// of one area that is the nearest in shape. A picture that covers none has,
// where it is to be enlarged, the size for which it is least, else nothing.
std::optional<int32_t> BucketOf(std::span<const PictureSize> sizes,
                                const PictureSize& picture, bool enlarge);

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_BUCKETS_H_
