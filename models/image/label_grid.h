// A grid of pictures, one named row per class: what `trireme sample` shows.

#ifndef TRIREME_MODELS_IMAGE_LABEL_GRID_H_
#define TRIREME_MODELS_IMAGE_LABEL_GRID_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/image/image.h"

namespace trireme {

struct LabelGridRow {
  std::string name;  // drawn to the left of the row
  std::vector<Image> images;
};

struct LabelGridOptions {
  std::string title;  // drawn above the grid when not empty
  // Each pixel of a picture becomes a square of magnify x magnify; 0 chooses
  // what makes small pictures about 80 pixels wide.
  int magnify = 0;
};

// An RGB picture with white background. Pictures may be gray or RGB, of any
// sizes; a cell is as large as the largest. Errors: no picture at all, or a
// grid of more than 2^28 pixels.
absl::StatusOr<Image> DrawLabelGrid(const std::vector<LabelGridRow>& rows,
                                    const LabelGridOptions& options = {});

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_LABEL_GRID_H_
