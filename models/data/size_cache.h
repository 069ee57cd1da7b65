// The sizes of a data set's pictures, kept in a file beside them, so that not
// every start opens every picture.

#ifndef TRIREME_MODELS_DATA_SIZE_CACHE_H_
#define TRIREME_MODELS_DATA_SIZE_CACHE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/data/dataset.h"

namespace trireme {

// Hidden, so that no data set takes it for one of its files.
inline constexpr char kSizeCacheName[] = ".trireme_sizes";

// A file as a data set calls it, and where it lies.
struct NamedFile {
  std::string name;
  std::string path;
};

// A hash of names, lengths and times of change; nothing where one of the files
// is out of reach.
std::optional<uint64_t> HashOfFiles(std::span<const NamedFile> files);

// As Dataset::ReadSizes reads them one by one, but from the file at `path`,
// where that was written for the same `files` (a hash of all that the samples
// are made of) and is whole; otherwise it is written anew. Samples whose size
// could not be read are tried again each time. Where it cannot be written the
// log says so.
std::vector<absl::StatusOr<PictureSize>> ReadSizesOnce(const Dataset& dataset,
                                                       const std::string& path,
                                                       uint64_t files);

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_SIZE_CACHE_H_
