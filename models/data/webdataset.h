// Tar shards in the WebDataset layout (docs/formats/shards.md): neighbouring
// members whose paths agree up to the first dot of the last component form a
// sample: a picture (png, jpg, jpeg, webp), or its latents (latents), and, each
// optional, its class (cls), caption (txt, or json with "caption") and text
// tokens (tokens).

#ifndef TRIREME_MODELS_DATA_WEBDATASET_H_
#define TRIREME_MODELS_DATA_WEBDATASET_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/data/dataset.h"
#include "models/data/latents.h"

namespace trireme {

inline constexpr int32_t kMaxWebDatasetClasses = 1 << 20;

struct WebDatasetOptions {
  // Shard files (not compressed), or folders of which all *.tar files are
  // taken, in byte order. A classes.txt in the first folder names the classes,
  // one a line.
  std::vector<std::string> paths;
  // 0 = as many as classes.txt names, or else up to the largest class found. A
  // sample with another class is damaged; so is one without, if others have
  // theirs.
  int32_t num_classes = 0;
  // Samples are latents of this shape (members "latents") in the place of
  // pictures, which are not looked for.
  LatentFormat latents;
};

// Walks through the headers of all shards once to find where samples begin
// (pictures are not read; .cls members are). A damaged shard gives the
// samples before the damage, or also behind it where its headers can be found
// again, and one that is no tar file gives none; each such shard is logged.
// Errors: files that cannot be opened, no sample in any shard.
absl::StatusOr<std::unique_ptr<Dataset>> OpenWebDataset(
    const WebDatasetOptions& options);

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_WEBDATASET_H_
