// A picture's size on the command line: HEIGHTxWIDTH.

#ifndef TRIREME_TOOLS_SIZE_OPTION_H_
#define TRIREME_TOOLS_SIZE_OPTION_H_

#include <string>

#include "absl/status/statusor.h"
#include "models/image/picture_size.h"

namespace trireme {

// Sides of 1 to 16384. Errors name the option.
absl::StatusOr<PictureSize> ParsePictureSize(const std::string& option,
                                             const std::string& text);

}  // namespace trireme

#endif  // TRIREME_TOOLS_SIZE_OPTION_H_
