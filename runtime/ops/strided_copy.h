// Copies of runs at regular distances: what is left of slicing, placing,
// concatenating, transposing and repeating once the shapes are known.

#ifndef TRIREME_RUNTIME_OPS_STRIDED_COPY_H_
#define TRIREME_RUNTIME_OPS_STRIDED_COPY_H_

#include <cstdint>

namespace trireme {

// Run (o, i) begins at element offset + o·outer + i·inner. An inner distance of
// 0 reads the same run again.
struct RunPlaces {
  int64_t offset = 0;
  int64_t outer = 0;
  int64_t inner = 0;
};

// outer·inner runs of `run` elements, from one tensor to another.
struct StridedCopy {
  int64_t outer = 1;
  int64_t inner = 1;
  int64_t run = 0;
  RunPlaces from;
  RunPlaces to;
};

// One run at any place.
struct ElementRun {
  int64_t from = 0;
  int64_t to = 0;
  int64_t count = 0;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_STRIDED_COPY_H_
