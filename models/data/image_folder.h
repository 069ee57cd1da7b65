// A folder of pictures: one subfolder a class, PNG, JPEG and WebP files in it.

#ifndef TRIREME_MODELS_DATA_IMAGE_FOLDER_H_
#define TRIREME_MODELS_DATA_IMAGE_FOLDER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "models/data/dataset.h"

namespace trireme {

// Classes are the subfolders of `folder` that hold pictures, in the order of
// their names; samples are in the order of class and file name. Pictures that
// lie in `folder` itself are taken only where no subfolder holds any; they
// have no class. Files are recognised by their ending (.png, .jpg, .jpeg,
// .webp in either case); names that begin with a dot are passed over. Beside
// x.png, x.txt is its caption, x.tokens its text states and x.pooled its text
// as one vector (text_tokens.h).
//
// Errors: no such folder, no picture in it. Pictures are decoded in Read.
absl::StatusOr<std::unique_ptr<Dataset>> OpenImageFolder(
    const std::string& folder);

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_IMAGE_FOLDER_H_
