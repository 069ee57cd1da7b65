// Where weights come from: logical tensors by name, of which each rank reads
// its own runs of elements.

#ifndef TRIREME_MODELS_WEIGHTS_TENSOR_SOURCE_H_
#define TRIREME_MODELS_WEIGHTS_TENSOR_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/sharding/logical_tensors.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/dtype.h"
#include "runtime/core/shape.h"

namespace trireme {

class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // Errors name the source and the tensor that is missing or has another shape
  // or no numbers.
  virtual absl::Status Check(const std::string& name,
                             const Shape& shape) const = 0;
  // Elements [begin, begin + values.size()) of a tensor that was checked,
  // exact: every type of weights is a part of double.
  virtual void Read(const std::string& name, int64_t begin,
                    std::span<double> values) const = 0;
};

// The logical tensors of a checkpoint's file.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenCheckpointTensors(
    const std::string& path);

// Fills the parts, rounded once to their types. Errors: those of Check.
absl::Status ReadParts(const TensorSource& source,
                       std::span<const TensorPart> parts);

// Elements of a file's tensor, from the index `begin` on.
void ReadElements(DType dtype, std::span<const std::byte> bytes, int64_t begin,
                  std::span<double> values);
// The next elements of the entry's tensor, rounded to its type.
absl::Status AppendNumbers(SafetensorsWriter& writer,
                           const SafetensorsEntry& entry,
                           std::span<const double> values);
// Which of the tensors that are written have elements that are, rounded to
// their type, NaN or infinite: they are kept, but not unsaid.
class NonFiniteTensors {
 public:
  // The next elements of the entry's tensor.
  void Look(const SafetensorsEntry& entry, std::span<const double> values);
  // Warns of them, if there are any: how many, and the first. `path`: where
  // they were written.
  void Warn(const std::string& path) const;

 private:
  int64_t count_ = 0;
  std::string first_, last_;
};

// The whole of the entry's tensor, a piece at a time; the source has it.
absl::Status AppendTensor(SafetensorsWriter& writer,
                          const SafetensorsEntry& entry,
                          const TensorSource& source,
                          NonFiniteTensors& non_finite);

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_TENSOR_SOURCE_H_
