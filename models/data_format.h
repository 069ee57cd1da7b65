// What the data give a model.

#ifndef TRIREME_MODELS_DATA_FORMAT_H_
#define TRIREME_MODELS_DATA_FORMAT_H_

#include <cstdint>

namespace trireme {

struct DataFormat {
  int64_t channels = 1;
  int64_t resolution = 0;  // side of the square pictures
  int64_t classes = 0;     // 0: samples have none
  // Where samples are no pictures but sets of tokens: how many each, and the
  // channels of a token.
  int64_t tokens = 0;
  int64_t token_channels = 0;
  // More than 0: tokens are the cubes of a cube with so many a side, x fastest.
  // 0: they have no places.
  int64_t lattice = 0;
  // Samples are shapes themselves: points on their surfaces and distances.
  bool surfaces = false;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_FORMAT_H_
