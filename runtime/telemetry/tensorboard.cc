#include "runtime/telemetry/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

static_assert(std::endian::native == std::endian::little);

// Wire types of protobuf.
constexpr uint32_t kVarint = 0;
constexpr uint32_t kFixed64 = 1;
constexpr uint32_t kBytes = 2;
constexpr uint32_t kFixed32 = 5;

void AppendVarint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) {
    out.push_back(static_cast<char>((value & 0x7f) | 0x80));
  }
  out.push_back(static_cast<char>(value));
}

void AppendKey(std::string& out, uint32_t field, uint32_t wire_type) {
  AppendVarint(out, (field << 3) | wire_type);
}

void AppendVarintField(std::string& out, uint32_t field, uint64_t value) {
  AppendKey(out, field, kVarint);
  AppendVarint(out, value);
}

template <typename T>
void AppendRaw(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void AppendBytesField(std::string& out, uint32_t field, std::string_view data) {
  AppendKey(out, field, kBytes);
  AppendVarint(out, data.size());
  out.append(data);
}

// CRC-32C (Castagnoli), reflected polynomial 0x82f63b78.
uint32_t Crc32c(std::string_view data) {
  static constexpr std::array<uint32_t, 256> kTable = [] {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit) {
        crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
      }
      table[i] = crc;
    }
    return table;
  }();
  uint32_t crc = 0xffffffffu;
  for (const char c : data) {
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<uint8_t>(c)) & 0xff];
  }
  return ~crc;
}

// TFRecord stores checksums rotated and offset, so that a checksum of data
// that contains checksums stays sound.
uint32_t MaskedCrc(std::string_view data) {
  const uint32_t crc = Crc32c(data);
  return std::rotr(crc, 15) + 0xa282ead8u;
}

// Of TensorFlow: SessionLog::START, DataType, DataClass.
constexpr uint64_t kSessionStart = 1;
constexpr uint64_t kFloatType = 1;
constexpr uint64_t kDoubleType = 2;
constexpr uint64_t kInt32Type = 3;
constexpr uint64_t kStringType = 7;
constexpr uint64_t kTensorClass = 2;

// MeshPluginData::ContentType.
constexpr uint32_t kVertexContent = 1;
constexpr uint32_t kFaceContent = 2;

// How long a step may wait in the buffer before a watcher sees it.
constexpr std::chrono::seconds kFlushInterval(2);

double WallTime() {
  return std::chrono::duration<double>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string Event(double wall_time, int64_t step, std::string_view field) {
  std::string event;
  AppendKey(event, 1, kFixed64);
  AppendRaw(event, wall_time);
  AppendVarintField(event, 2, static_cast<uint64_t>(step));
  event.append(field);
  return event;
}

std::string SummaryField(std::string_view value) {
  std::string summary, field;
  AppendBytesField(summary, 1, value);
  AppendBytesField(field, 5, summary);
  return field;
}

// Elements in row-major order.
std::string TensorOf(uint64_t dtype, std::span<const uint64_t> shape,
                     std::string_view elements) {
  std::string dims, tensor;
  for (const uint64_t size : shape) {
    std::string dim;
    AppendVarintField(dim, 1, size);
    AppendBytesField(dims, 2, dim);
  }
  AppendVarintField(tensor, 1, dtype);
  AppendBytesField(tensor, 2, dims);
  AppendBytesField(tensor, 4, elements);
  return tensor;
}

// A Summary's value that is a tensor for a plugin.
std::string TensorValue(std::string_view tag, std::string_view tensor,
                        std::string_view plugin, std::string_view content) {
  std::string plugin_data, metadata, value;
  AppendBytesField(plugin_data, 1, plugin);
  if (!content.empty()) AppendBytesField(plugin_data, 2, content);
  AppendBytesField(metadata, 1, plugin_data);
  AppendVarintField(metadata, 4, kTensorClass);
  AppendBytesField(value, 1, tag);
  AppendBytesField(value, 8, tensor);
  AppendBytesField(value, 9, metadata);
  return value;
}

// One part of a mesh of `rows` times three elements. The plugin joins the parts
// by the name in their content.
template <typename T>
std::string MeshValue(std::string_view tag, std::string_view part,
                      uint32_t content_type, uint64_t dtype,
                      std::span<const T> elements) {
  const std::array<uint64_t, 3> shape = {1, elements.size() / 3, 3};
  std::string content, packed;
  for (const uint64_t size : shape) AppendVarint(packed, size);
  AppendBytesField(content, 2, tag);
  AppendVarintField(content, 3, content_type);
  AppendBytesField(content, 6, packed);
  AppendVarintField(content, 7, 1u << kVertexContent | 1u << kFaceContent);
  return TensorValue(fmt::format("{}_{}", tag, part),
                     TensorOf(dtype, shape,
                              {reinterpret_cast<const char*>(elements.data()),
                               elements.size_bytes()}),
                     "mesh", content);
}

std::string ScalarField(std::string_view tag, float value) {
  std::string message;
  AppendBytesField(message, 1, tag);
  AppendKey(message, 2, kFixed32);
  AppendRaw(message, value);
  return SummaryField(message);
}

}  // namespace

std::string TfRecord(std::string_view data) {
  std::string length;
  AppendRaw(length, static_cast<uint64_t>(data.size()));
  std::string record = length;
  AppendRaw(record, MaskedCrc(length));
  record.append(data);
  AppendRaw(record, MaskedCrc(data));
  return record;
}

std::string ScalarEvent(double wall_time, int64_t step, std::string_view tag,
                        float value) {
  return Event(wall_time, step, ScalarField(tag, value));
}

absl::StatusOr<std::unique_ptr<TensorboardWriter>> TensorboardWriter::Create(
    const std::string& folder, int64_t first_step) {
  char host[256] = "localhost";
  gethostname(host, sizeof(host) - 1);
  const std::string path =
      fmt::format("{}/events.out.tfevents.{}.{}.{}", folder,
                  static_cast<int64_t>(WallTime()), host, getpid());
  ASSIGN_OR_RETURN(auto file, AppendingFile::Open(path));
  std::unique_ptr<TensorboardWriter> writer(
      new TensorboardWriter(std::move(file)));
  std::string version;
  AppendBytesField(version, 3, "brain.Event:2");
  RETURN_IF_ERROR(writer->WriteEvent(0, version));
  // Readers forget earlier files' events from this one's step on.
  std::string start, session;
  AppendVarintField(start, 1, kSessionStart);
  AppendBytesField(session, 7, start);
  RETURN_IF_ERROR(writer->WriteEvent(first_step, session));
  RETURN_IF_ERROR(writer->Flush());
  return writer;
}

absl::Status TensorboardWriter::WriteEvent(int64_t step,
                                           std::string_view field) {
  file_->Add(TfRecord(Event(WallTime(), step, field)));
  const bool due = std::chrono::steady_clock::now() - flushed_ > kFlushInterval;
  return due ? Flush() : absl::OkStatus();
}

absl::Status TensorboardWriter::AddScalar(std::string_view tag, int64_t step,
                                          double value) {
  return WriteEvent(step, ScalarField(tag, static_cast<float>(value)));
}

absl::Status TensorboardWriter::AddImage(std::string_view tag, int64_t step,
                                         int width, int height, int channels,
                                         std::string_view png) {
  std::string image;
  AppendVarintField(image, 1, static_cast<uint64_t>(height));
  AppendVarintField(image, 2, static_cast<uint64_t>(width));
  AppendVarintField(image, 3, static_cast<uint64_t>(channels));
  AppendBytesField(image, 4, png);
  std::string value;
  AppendBytesField(value, 1, tag);
  AppendBytesField(value, 4, image);
  return WriteEvent(step, SummaryField(value));
}

absl::Status TensorboardWriter::AddText(std::string_view tag, int64_t step,
                                        std::string_view text) {
  std::string tensor, plugin, metadata, value;
  AppendVarintField(tensor, 1, kStringType);
  AppendBytesField(tensor, 2, "");  // The shape of a scalar.
  AppendBytesField(tensor, 8, text);
  AppendBytesField(plugin, 1, "text");
  AppendBytesField(metadata, 1, plugin);
  AppendBytesField(value, 1, tag);
  AppendBytesField(value, 8, tensor);
  AppendBytesField(value, 9, metadata);
  return WriteEvent(step, SummaryField(value));
}

absl::Status TensorboardWriter::AddHistogram(
    std::string_view tag, int64_t step, std::span<const HistogramBin> bins) {
  std::string elements;
  for (const HistogramBin& bin : bins) {
    AppendRaw(elements, bin.low);
    AppendRaw(elements, bin.high);
    AppendRaw(elements, bin.count);
  }
  const std::array<uint64_t, 2> shape = {bins.size(), 3};
  return WriteEvent(step, SummaryField(TensorValue(
                              tag, TensorOf(kDoubleType, shape, elements),
                              "histograms", "")));
}

absl::Status TensorboardWriter::AddMesh(std::string_view tag, int64_t step,
                                        std::span<const float> positions,
                                        std::span<const int32_t> triangles) {
  CHECK(positions.size() % 3 == 0 && triangles.size() % 3 == 0) << tag;
  RETURN_IF_ERROR(
      WriteEvent(step, SummaryField(MeshValue(tag, "VERTEX", kVertexContent,
                                              kFloatType, positions))));
  return WriteEvent(step, SummaryField(MeshValue(tag, "FACE", kFaceContent,
                                                 kInt32Type, triangles)));
}

absl::Status TensorboardWriter::Flush() {
  flushed_ = std::chrono::steady_clock::now();
  return file_->Flush();
}

}  // namespace trireme
