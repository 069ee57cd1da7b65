// Reads members of zip archives, through libarchive.
//
// The file is hostile: names are only ever compared and shown, sizes are what
// comes out, not what is claimed, and nothing is extracted to a path. Any
// thread.

#ifndef TRIREME_MODELS_SHAPE_ZIP_READER_H_
#define TRIREME_MODELS_SHAPE_ZIP_READER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace trireme {

// The names of an archive's files, in its order. Errors: no zip archive, or one
// of more than a million files.
absl::StatusOr<std::vector<std::string>> ListZip(const std::string& archive);

// A file of the archive. Errors: NotFound; ResourceExhausted where more than
// max_bytes come out; DataLoss.
absl::StatusOr<std::string> ReadZipMember(const std::string& archive,
                                          const std::string& name,
                                          int64_t max_bytes);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_ZIP_READER_H_
