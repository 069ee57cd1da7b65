// IDX files, the format of MNIST and its relatives: a big-endian header (magic
// 0x00000803 = bytes in 3 dimensions: count, rows, columns; 0x00000801 = bytes
// in 1 dimension, the labels), then the bytes. Raw or gzip-compressed.

#ifndef TRIREME_MODELS_DATA_IDX_H_
#define TRIREME_MODELS_DATA_IDX_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/data/dataset.h"

namespace trireme {

// Opens {train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz] in `folder`; `split`
// is "train" or "test". Everything is held in memory, uncompressed. There are
// as many classes as names, or, without names, as labels occur (0 … largest). A
// sample's caption is the name of its class.
// Errors name the file, what was found and what was expected.
absl::StatusOr<std::unique_ptr<Dataset>> OpenIdx(
    const std::string& folder, std::string_view split,
    std::vector<std::string> class_names = {});

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_IDX_H_
