// What image folders and tar shards have in common: which endings hold what,
// and how each is read.

#ifndef TRIREME_MODELS_DATA_SAMPLE_FILES_H_
#define TRIREME_MODELS_DATA_SAMPLE_FILES_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trireme {

inline constexpr int64_t kMaxImageBytes = int64_t{64} << 20;
// In which a picture's size stands, but of files with a lot before it.
inline constexpr int64_t kUsualHeaderBytes = int64_t{64} << 10;
inline constexpr int64_t kMaxCaptionBytes = int64_t{64} << 10;
inline constexpr int64_t kMaxTokensBytes = int64_t{256} << 20;

// The first `most` bytes of a file, or all of it. Errors: NotFound.
absl::StatusOr<std::string> ReadFileStart(const std::string& path,
                                          int64_t most);

// True for png, jpg, jpeg and webp in any case, without the dot.
bool IsImageEnding(std::string_view ending);

// A caption file's text without surrounding white space. Errors: bytes that are
// no UTF-8.
absl::StatusOr<std::string> ParseCaption(std::string_view text);

// The caption in a JSON object: its "caption", else its "text"; empty if it has
// neither. Errors: not a JSON object, a caption that is not a string.
absl::StatusOr<std::string> ParseJsonCaption(std::string_view json);

// The decimal number in a .cls file. Errors: anything else, or beyond int32.
absl::StatusOr<int32_t> ParseClassId(std::string_view text);

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_SAMPLE_FILES_H_
