// TensorBoard event files, without TensorFlow: records of
//   u64 length, masked crc32c(length), data, masked crc32c(data)
// (little-endian), whose data is an Event message in protobuf's wire format,
// written here by hand: wall_time = 1 (double), step = 2 (varint),
// file_version = 3 (string), summary = 5 { value = 1 { tag = 1 (string),
// simple_value = 2 (float), image = 4 { height = 1, width = 2, colorspace = 3
// (varints), encoded_image_string = 4 } } }.

#ifndef TRIREME_RUNTIME_TELEMETRY_TENSORBOARD_H_
#define TRIREME_RUNTIME_TELEMETRY_TENSORBOARD_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trireme {

class TensorboardWriter {
 public:
  // Starts events.out.tfevents.<seconds>.<host> in `folder`, which exists.
  static absl::StatusOr<std::unique_ptr<TensorboardWriter>> Create(
      const std::string& folder);
  ~TensorboardWriter();
  TensorboardWriter(const TensorboardWriter&) = delete;
  TensorboardWriter& operator=(const TensorboardWriter&) = delete;

  absl::Status AddScalar(std::string_view tag, int64_t step, double value);
  // A picture as PNG bytes.
  absl::Status AddImage(std::string_view tag, int64_t step, int width,
                        int height, int channels, std::string_view png);
  absl::Status Flush();

 private:
  TensorboardWriter(std::string path, std::FILE* file)
      : path_(std::move(path)), file_(file) {}
  absl::Status WriteEvent(int64_t step, std::string_view field);

  std::string path_;
  std::FILE* file_;
};

// One framed record, for tests.
std::string TfRecord(std::string_view data);
// The Event message of a scalar, for tests.
std::string ScalarEvent(double wall_time, int64_t step, std::string_view tag,
                        float value);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_TELEMETRY_TENSORBOARD_H_
