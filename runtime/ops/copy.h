// Copies within a device, and constants. Any dtype; both tensors of a copy have
// the same.

#ifndef TRIREME_RUNTIME_OPS_COPY_H_
#define TRIREME_RUNTIME_OPS_COPY_H_

#include <span>
#include <string_view>

#include "runtime/device/tensor.h"
#include "runtime/ops/kernels/copy.h"

namespace trireme {

// Both CHECK that runs lie inside their tensors. Runs that are written may not
// overlap.
void CopyStrided(const StridedCopy& copy, const Tensor& source,
                 const Tensor& target);
void CopyRuns(std::span<const ElementRun> runs, const Tensor& source,
              const Tensor& target);

// x[.., begin:end, ..] of `dim`, as a new tensor.
Tensor CopySlice(const Tensor& x, int dim, int64_t begin, int64_t end,
                 std::string_view label = "slice");
// target[.., begin:begin + source.dim(dim), ..] = source.
void WriteSlice(const Tensor& source, int dim, int64_t begin,
                const Tensor& target);
// target[.., begin:end, ..] = 0.
void ZeroSlice(const Tensor& target, int dim, int64_t begin, int64_t end);

// target[column, row, ..] = x[row, column, ..], whatever the tensors' shapes:
// their elements are seen as rows·columns equal runs.
void SwapRowsAndColumns(const Tensor& x, int64_t rows, int64_t columns,
                        const Tensor& target);

// y[b, tokens, h] = x[b, h] for every token.
Tensor RepeatOverTokens(const Tensor& x, int64_t tokens,
                        std::string_view label = "repeated");

// Every element = value, rounded to the dtype.
void Fill(const Tensor& target, double value);
Tensor Full(Device& device, const Shape& shape, DType dtype, double value,
            MemoryCategory category = MemoryCategory::kActivations,
            std::string_view label = "activation");

// Int32 counts and labels: x + offset; and `value` where mask (uint8) is not 0.
Tensor AddOffset(const Tensor& x, int32_t offset, std::string_view label);
Tensor MaskedFill(const Tensor& x, const Tensor& mask, int32_t value,
                  std::string_view label);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_COPY_H_
