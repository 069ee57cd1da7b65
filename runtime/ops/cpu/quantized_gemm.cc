#include "runtime/ops/cpu/quantized_gemm.h"

#include <algorithm>
#include <cstddef>
#include <memory>

#include "runtime/core/log.h"
#include "runtime/device/arena.h"
#include "runtime/ops/cpu/amx_gemm.h"
#include "runtime/ops/cpu/quantization_kernels.h"

namespace trireme {
namespace {

// Columns of a block that is not divided: scales of NF4 are of as many.
constexpr int64_t kGranule = kNormalFloat4Block;

// One that decodes while it packs; null where there is none.
std::unique_ptr<RaggedGemm> DecodingGemm(const CpuGemmSpec& spec) {
  // To it 0 terms are any number, which codes do not have.
  CHECK(spec.m > 0 && spec.n > 0 && spec.k > 0) << spec.ToString();
  return IsFasterByAmx(spec) ? MakeRaggedAmxGemm(spec) : nullptr;
}

// Columns of b in equal panels of whole blocks.
int64_t PanelColumns(const CpuGemmSpec& spec) {
  const int64_t most =
      std::max(kGranule, kMaxPanelBytes / (spec.k * DTypeSize(spec.dtype)) /
                             kGranule * kGranule);
  const int64_t panels = (spec.n + most - 1) / most;
  const int64_t even = (spec.n + panels - 1) / panels;
  return std::min(spec.n, (even + kGranule - 1) / kGranule * kGranule);
}

// The product of so many columns' values.
CpuGemmSpec OfValues(CpuGemmSpec spec, int64_t columns) {
  spec.b = spec.transposes_codes() ? MatrixStrides{0, 1, spec.k}
                                   : MatrixStrides{0, columns, 1};
  spec.b_codes = {};
  spec.n = columns;
  return spec;
}

// Of a panel's values, in front of what its product needs.
int64_t ValueBytes(const CpuGemmSpec& spec) {
  return Arena::Aligned(PanelColumns(spec) * spec.k * DTypeSize(spec.dtype));
}

void PanelValues(const CpuGemmSpec& spec, const GemmOperands& operands,
                 int64_t first, int64_t columns, void* values) {
  const QuantizedMatrix& layout = spec.b_codes;
  if (!spec.transposes_codes()) {
    DequantizeColumnsKernel(layout, first, columns, operands.b,
                            operands.b_scales, spec.dtype, values);
    return;
  }
  QuantizedMatrix rows = layout;
  rows.rows = columns;
  DequantizeKernel(
      rows,
      static_cast<const std::byte*>(operands.b) + first * layout.code_bytes(),
      static_cast<const float*>(operands.b_scales) + first * layout.blocks(),
      spec.dtype, values);
}

}  // namespace

int64_t QuantizedGemmWorkspace(const CpuGemmSpec& spec) {
  if (const auto packing = DecodingGemm(spec)) {
    return packing->workspace_bytes();
  }
  const int64_t columns = PanelColumns(spec);
  const auto of = [&](int64_t n) {
    return PreparedGemm(OfValues(spec, n))->workspace_bytes();
  };
  const int64_t last = spec.n % columns;
  return ValueBytes(spec) +
         std::max(of(columns), last > 0 ? of(last) : int64_t{0});
}

void RunQuantizedGemm(const CpuGemmSpec& spec, const GemmOperands& operands) {
  CHECK(spec.batch == 1 && !spec.accumulate) << spec.ToString();
  if (const auto packing = DecodingGemm(spec)) {
    packing->RunOfCodes(spec.m, spec.k, operands.a, operands.b,
                        operands.b_scales, operands.bias, operands.out,
                        operands.workspace);
    return;
  }
  const int64_t panel = PanelColumns(spec);
  auto* const values = static_cast<std::byte*>(operands.workspace);
  const auto* const bias = static_cast<const std::byte*>(operands.bias);
  for (int64_t first = 0; first < spec.n; first += panel) {
    const int64_t columns = std::min(panel, spec.n - first);
    PanelValues(spec, operands, first, columns, values);
    PreparedGemm(OfValues(spec, columns))
        ->Run(operands.a, values,
              spec.bias ? bias + first * DTypeSize(spec.dtype) : nullptr,
              static_cast<std::byte*>(operands.out) +
                  first * DTypeSize(spec.out_dtype),
              values + ValueBytes(spec));
  }
}

}  // namespace trireme
