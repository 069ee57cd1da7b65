// Tables of shares as colours, one above the other, with a scale: such as who
// gets how much when. Pure functions; any thread.

#ifndef TRIREME_MODELS_IMAGE_HEAT_MAP_H_
#define TRIREME_MODELS_IMAGE_HEAT_MAP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/image/image.h"

namespace trireme {

struct HeatMap {
  std::string name;
  // values[row·columns + column], the first row at the top; what is no number
  // is left white.
  int64_t columns = 0;
  std::vector<double> values;

  int64_t rows() const {
    return columns == 0 ? 0 : static_cast<int64_t>(values.size()) / columns;
  }
};

struct HeatMapOptions {
  std::string title;
  std::string row_label;
  std::string column_label;
  // What lies at the left and right ends of the columns.
  double column_low = 0;
  double column_high = 1;
};

// An RGB picture, in which all maps share the scale from 0 to their highest
// value. Errors: no map, a map without values or with other than whole rows, a
// picture of more than 32767 pixels a side.
absl::StatusOr<Image> DrawHeatMaps(const std::vector<HeatMap>& maps,
                                   const HeatMapOptions& options = {});

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_HEAT_MAP_H_
