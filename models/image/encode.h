// Writes pictures as PNG: 8-bit gray or RGB, the same bytes for the same
// pixels, with "trireme" as the software that wrote them. Any thread.

#ifndef TRIREME_MODELS_IMAGE_ENCODE_H_
#define TRIREME_MODELS_IMAGE_ENCODE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/image/image.h"

namespace trireme {

absl::StatusOr<std::string> EncodePng(const Image& image);

// Whether a picture may be written there: an error where a file has the name
// that this program did not write, unless `overwrite`.
absl::Status CheckReplaces(const std::string& path, bool overwrite);

// Written beside its name, synced and renamed.
absl::Status WritePng(const std::string& path, const Image& image);

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_ENCODE_H_
