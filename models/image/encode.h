// Writes pictures as PNG: 8-bit gray or RGB, the same bytes for the same
// pixels. Any thread.

#ifndef TRIREME_MODELS_IMAGE_ENCODE_H_
#define TRIREME_MODELS_IMAGE_ENCODE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/image/image.h"

namespace trireme {

absl::StatusOr<std::string> EncodePng(const Image& image);

// Written beside its name, synced and renamed.
absl::Status WritePng(const std::string& path, const Image& image);

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_ENCODE_H_
