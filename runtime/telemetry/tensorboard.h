// TensorBoard event files, without TensorFlow: records of
//   u64 length, masked crc32c(length), data, masked crc32c(data)
// (little-endian), whose data is an Event message in protobuf's wire format,
// written here by hand: wall_time = 1 (double), step = 2 (varint),
// file_version = 3 (string), session_log = 7 { status = 1 (varint) }, summary =
// 5 { value = 1 { tag = 1 (string), and one of simple_value = 2 (float), image
// = 4 { height = 1, width = 2, colorspace = 3 (varints), encoded_image_string =
// 4 }, tensor = 8 { dtype = 1 (varint), tensor_shape = 2 { dim = 2 { size = 1
// } }, tensor_content = 4, string_val = 8 } with metadata = 9 { plugin_data = 1
// { plugin_name = 1, content = 2 }, data_class = 4 (varint) } } }. The content
// of a mesh's is a MeshPluginData: name = 2, content_type = 3, shape = 6,
// components = 7 (tensorboard/plugins/mesh/plugin_data.proto).
//
// A writer belongs to one thread. Errors: those of AppendingFile.

#ifndef TRIREME_RUNTIME_TELEMETRY_TENSORBOARD_H_
#define TRIREME_RUNTIME_TELEMETRY_TENSORBOARD_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/telemetry/appending_file.h"

namespace trireme {

// Of the values from `low` to below `high`, how many there are.
struct HistogramBin {
  double low = 0;
  double high = 0;
  double count = 0;
};

class TensorboardWriter {
 public:
  // Starts events.out.tfevents.<seconds>.<host>.<process> in `folder`, which
  // exists. What the folder's older files say of `first_step` and later steps
  // is no longer shown: a resumed run has each step once.
  static absl::StatusOr<std::unique_ptr<TensorboardWriter>> Create(
      const std::string& folder, int64_t first_step = 0);

  absl::Status AddScalar(std::string_view tag, int64_t step, double value);
  // A picture as PNG bytes.
  absl::Status AddImage(std::string_view tag, int64_t step, int width,
                        int height, int channels, std::string_view png);
  // Markdown.
  absl::Status AddText(std::string_view tag, int64_t step,
                       std::string_view text);
  // Bins in ascending order.
  absl::Status AddHistogram(std::string_view tag, int64_t step,
                            std::span<const HistogramBin> bins);
  // A surface: positions [vertices, 3], and as triangles [triangles, 3] the
  // numbers of three vertices each. CHECKs that both come in threes.
  absl::Status AddMesh(std::string_view tag, int64_t step,
                       std::span<const float> positions,
                       std::span<const int32_t> triangles);
  // Adding flushes by itself every few seconds, for whoever watches the run.
  absl::Status Flush();

 private:
  explicit TensorboardWriter(std::unique_ptr<AppendingFile> file)
      : file_(std::move(file)) {}
  absl::Status WriteEvent(int64_t step, std::string_view field);

  const std::unique_ptr<AppendingFile> file_;
  std::chrono::steady_clock::time_point flushed_;
};

// One framed record, for tests.
std::string TfRecord(std::string_view data);
// The Event message of a scalar, for tests.
std::string ScalarEvent(double wall_time, int64_t step, std::string_view tag,
                        float value);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_TELEMETRY_TENSORBOARD_H_
