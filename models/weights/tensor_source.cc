#include "models/weights/tensor_source.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "parallel/sharding/stored_tensors.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/host.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

// Elements that are converted at a time.
constexpr int64_t kPieceElements = 1 << 18;

template <typename T>
void Widen(std::span<const std::byte> bytes, int64_t begin,
           std::span<double> values) {
  const std::byte* at = bytes.data() + begin * sizeof(T);
  for (double& value : values) {
    T element;
    std::memcpy(&element, at, sizeof(T));
    at += sizeof(T);
    if constexpr (std::is_same_v<T, double>) {
      value = element;
    } else {
      value = static_cast<float>(element);
    }
  }
}

template <typename T>
absl::Status AppendAs(SafetensorsWriter& writer, const std::string& name,
                      std::span<const double> values) {
  std::vector<T> elements;
  elements.reserve(values.size());
  for (const double value : values) {
    if constexpr (std::is_same_v<T, double>) {
      elements.push_back(value);
    } else {
      elements.push_back(T(static_cast<float>(value)));
    }
  }
  return writer.Append(name, elements.data(),
                       static_cast<int64_t>(elements.size() * sizeof(T)));
}

bool IsFiniteAs(DType dtype, double value) {
  const auto narrow = static_cast<float>(value);
  switch (dtype) {
    case DType::kFloat16:
      return std::isfinite(static_cast<float>(Float16(narrow)));
    case DType::kBFloat16:
      return std::isfinite(static_cast<float>(BFloat16(narrow)));
    case DType::kFloat64:
      return std::isfinite(value);
    default:
      return std::isfinite(narrow);
  }
}

class CheckpointTensors final : public TensorSource {
 public:
  explicit CheckpointTensors(std::unique_ptr<StoredTensors> stored)
      : stored_(std::move(stored)) {}

  absl::Status Check(const std::string& name,
                     const Shape& shape) const override {
    ASSIGN_OR_RETURN(const StoredTensors::Whole* found, stored_->Find(name));
    if (found->shape == shape && IsFloating(found->dtype)) {
      return absl::OkStatus();
    }
    return FailedPrecondition(
        "{}: tensor '{}': found {} {}, expected numbers of shape {}",
        stored_->path(), name, DTypeName(found->dtype), found->shape.ToString(),
        shape.ToString());
  }

  void Read(const std::string& name, int64_t begin,
            std::span<double> values) const override {
    const absl::StatusOr<const StoredTensors::Whole*> whole =
        stored_->Find(name);
    CHECK_OK(whole.status());
    const DType dtype = (*whole)->dtype;
    (*whole)->ForEachPiece(
        begin, static_cast<int64_t>(values.size()),
        [&](std::span<const std::byte> bytes, int64_t done) {
          ReadElements(dtype, bytes, 0,
                       values.subspan(done, bytes.size() / DTypeSize(dtype)));
        });
  }

 private:
  std::unique_ptr<StoredTensors> stored_;
};

void ReadPart(const TensorSource& source, const TensorPart& part) {
  const Tensor flat = part.local.Reshape({-1});
  CpuDevice host(std::numeric_limits<int64_t>::max());
  const bool wide = part.local.dtype() == DType::kFloat64;
  ForEachLocalRun(
      part.global_shape, part.shards,
      [&](int64_t local, int64_t global, int64_t count) {
        const int64_t end = std::min(local + count, part.end);
        for (int64_t first = std::max(local, part.begin); first < end;
             first += kPieceElements) {
          const int64_t size = std::min(kPieceElements, end - first);
          std::vector<double> values(size);
          source.Read(part.name, global + first - local, values);
          const Tensor piece =
              wide ? Upload<double>(host, {size}, values)
                   : Upload<float>(
                         host, {size},
                         std::vector<float>(values.begin(), values.end()));
          const int64_t to = first - part.begin;
          flat.Slice(to, to + size).CopyFrom(Cast(piece, part.local.dtype()));
        }
      });
}

}  // namespace

void ReadElements(DType dtype, std::span<const std::byte> bytes, int64_t begin,
                  std::span<double> values) {
  switch (dtype) {
    case DType::kFloat32:
      return Widen<float>(bytes, begin, values);
    case DType::kBFloat16:
      return Widen<BFloat16>(bytes, begin, values);
    case DType::kFloat16:
      return Widen<Float16>(bytes, begin, values);
    case DType::kFloat64:
      return Widen<double>(bytes, begin, values);
    default:
      LOG(FATAL) << "weights of " << dtype;
  }
}

absl::Status AppendNumbers(SafetensorsWriter& writer,
                           const SafetensorsEntry& entry,
                           std::span<const double> values) {
  switch (entry.dtype) {
    case DType::kFloat16:
      return AppendAs<Float16>(writer, entry.name, values);
    case DType::kBFloat16:
      return AppendAs<BFloat16>(writer, entry.name, values);
    case DType::kFloat64:
      return AppendAs<double>(writer, entry.name, values);
    default:
      return AppendAs<float>(writer, entry.name, values);
  }
}

void NonFiniteTensors::Look(const SafetensorsEntry& entry,
                            std::span<const double> values) {
  if (entry.name == last_) return;
  for (const double value : values) {
    if (IsFiniteAs(entry.dtype, value)) continue;
    if (count_++ == 0) first_ = entry.name;
    last_ = entry.name;
    return;
  }
}

void NonFiniteTensors::Warn(const std::string& path) const {
  if (count_ == 0) return;
  LOG(WARNING) << path << ": " << count_
               << " tensors have elements that are NaN or infinite, the first: "
               << first_;
}

absl::Status AppendTensor(SafetensorsWriter& writer,
                          const SafetensorsEntry& entry,
                          const TensorSource& source,
                          NonFiniteTensors& non_finite) {
  const int64_t size = entry.shape.num_elements();
  for (int64_t begin = 0; begin < size; begin += kPieceElements) {
    std::vector<double> values(std::min(kPieceElements, size - begin));
    source.Read(entry.name, begin, values);
    non_finite.Look(entry, values);
    RETURN_IF_ERROR(AppendNumbers(writer, entry, values));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TensorSource>> OpenCheckpointTensors(
    const std::string& path) {
  ASSIGN_OR_RETURN(auto stored, StoredTensors::Open(path));
  return std::make_unique<CheckpointTensors>(std::move(stored));
}

absl::Status ReadParts(const TensorSource& source,
                       std::span<const TensorPart> parts) {
  for (const TensorPart& part : parts) {
    RETURN_IF_ERROR(source.Check(part.name, part.global_shape));
  }
  for (const TensorPart& part : parts) ReadPart(source, part);
  return absl::OkStatus();
}

}  // namespace trireme
