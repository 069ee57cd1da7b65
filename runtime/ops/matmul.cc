#include "runtime/ops/matmul.h"

#include "runtime/core/log.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

// A row-major matrix [rows, columns], or the transpose of it.
MatrixStrides Strides(int64_t columns, bool transpose, int64_t batch = 0) {
  return transpose ? MatrixStrides{batch, 1, columns}
                   : MatrixStrides{batch, columns, 1};
}

// A tensor as `count` matrices of its last two dims.
struct Matrices {
  int64_t count;
  int64_t rows;
  int64_t columns;
};

Matrices AsMatrices(const Shape& shape, bool transpose) {
  CHECK_GE(shape.rank(), 2) << shape;
  Matrices result{shape.elements_before(shape.rank() - 2), shape.dim(-2),
                  shape.dim(-1)};
  if (transpose) std::swap(result.rows, result.columns);
  return result;
}

void RunGemm(const GemmSpec& spec, GemmOperands operands, const Tensor* bias,
             const Tensor& out, std::string_view label) {
  Device& device = out.device();
  operands.out = out.raw_data();
  if (bias != nullptr) operands.bias = bias->raw_data();
  Tensor workspace;
  const int64_t workspace_bytes = device.kernels().gemm.workspace_bytes(spec);
  if (workspace_bytes > 0) {
    workspace = Tensor::Empty(device, {workspace_bytes}, DType::kUint8,
                              MemoryCategory::kWorkspace, label);
    operands.workspace = workspace.raw_data();
  }
  device.kernels().gemm.run(device.stream(), spec, operands);
}

void CheckBias(const Tensor* bias, const GemmSpec& spec) {
  if (bias == nullptr) return;
  CHECK(bias->dtype() == spec.dtype) << bias->dtype();
  CHECK_EQ(bias->num_elements(), spec.n);
}

// Of a·bᵀ, but for what it gives.
GemmSpec SpecOfCodes(const QuantizedTensor& a, const QuantizedTensor& b,
                     DType dtype, std::string_view label) {
  CHECK(a.layout.format == WeightFormat::kFloat8 &&
        b.layout.format == WeightFormat::kFloat8)
      << label;
  CHECK_EQ(a.layout.columns, b.layout.columns) << label;
  GemmSpec spec;
  spec.m = a.layout.rows;
  spec.n = b.layout.rows;
  spec.k = a.layout.columns;
  spec.a = Strides(spec.k, false);
  spec.b = Strides(spec.k, true);
  spec.out = Strides(spec.n, false);
  spec.dtype = dtype;
  spec.float8 = true;
  spec.one_scale = a.scales.num_elements() == 1 && b.scales.num_elements() == 1;
  return spec;
}

GemmOperands OperandsOfCodes(const QuantizedTensor& a,
                             const QuantizedTensor& b) {
  return {.a = a.codes.raw_data(),
          .b = b.codes.raw_data(),
          .a_scales = a.scales.raw_data(),
          .b_scales = b.scales.raw_data()};
}

// What a product is by: values of a's dtype, or codes.
struct RightOperand {
  Shape shape;
  const void* data;
  QuantizedMatrix codes = {};
  const void* scales = nullptr;
};

RightOperand ValuesFor(const Tensor& a, const Tensor& b) {
  CHECK(a.dtype() == b.dtype()) << a.dtype() << " times " << b.dtype();
  return {.shape = b.shape(), .data = b.raw_data()};
}

RightOperand CodesFor(const Tensor& a, const QuantizedTensor& b,
                      const MatMulOptions& options) {
  CHECK(b.defined()) << options.label;
  CHECK(!options.transpose_a || a.rank() == 2) << options.label;
  return {.shape = {b.layout.rows, b.layout.columns},
          .data = b.codes.raw_data(),
          .codes = b.layout,
          .scales = b.scales.raw_data()};
}

// MatMul, times a function's derivative at x if that is not null.
Tensor Product(const Tensor& a, const RightOperand& b, const Tensor* bias,
               Activation derivative, const Tensor* x,
               const MatMulOptions& options) {
  Matrices left = AsMatrices(a.shape(), options.transpose_a);
  const Matrices right = AsMatrices(b.shape, options.transpose_b);
  CHECK_EQ(left.columns, right.rows) << a.shape() << " times " << b.shape;
  const bool shared_b = right.count == 1;
  CHECK(shared_b || right.count == left.count)
      << a.shape() << " times " << b.shape;

  Shape shape = a.shape();
  shape.set_dim(-2, left.rows);
  shape.set_dim(-1, right.columns);
  const DType out_dtype = options.out_dtype.value_or(a.dtype());
  Tensor out = Tensor::Empty(a.device(), shape, out_dtype,
                             MemoryCategory::kActivations, options.label);
  if (out.num_elements() == 0) return out;

  // One product of all rows is faster than a batch of small ones.
  if (shared_b && !options.transpose_a) {
    left.rows *= left.count;
    left.count = 1;
  }
  GemmSpec spec;
  spec.batch = left.count;
  spec.m = left.rows;
  spec.n = right.columns;
  spec.k = left.columns;
  const bool batched = spec.batch > 1;
  spec.a =
      Strides(a.dim(-1), options.transpose_a, batched ? spec.m * spec.k : 0);
  spec.b = Strides(b.shape.dim(-1), options.transpose_b,
                   batched && !shared_b ? spec.k * spec.n : 0);
  spec.b_codes = b.codes;
  spec.out = Strides(spec.n, false, batched ? spec.m * spec.n : 0);
  spec.dtype = a.dtype();
  spec.out_dtype = out_dtype;
  spec.bias = bias != nullptr;
  spec.activation = options.activation;
  CheckBias(bias, spec);
  GemmOperands operands = {
      .a = a.raw_data(), .b = b.data, .b_scales = b.scales};
  if (x != nullptr) {
    CHECK_EQ(x->shape(), out.shape()) << options.label;
    CHECK(x->dtype() == a.dtype() && out_dtype == a.dtype()) << options.label;
    CHECK_EQ(spec.batch, 1) << options.label;
    CHECK(options.activation == Activation::kNone) << options.label;
    spec.derivative = derivative;
    operands.x = x->raw_data();
  }
  RunGemm(spec, operands, bias, out, options.label);
  return out;
}

}  // namespace

Tensor MatMul(const Tensor& a, const Tensor& b, const Tensor* bias,
              const MatMulOptions& options) {
  return Product(a, ValuesFor(a, b), bias, Activation::kNone, nullptr, options);
}

Tensor MatMul(const Tensor& a, const QuantizedTensor& b, const Tensor* bias,
              const MatMulOptions& options) {
  return Product(a, CodesFor(a, b, options), bias, Activation::kNone, nullptr,
                 options);
}

Tensor MatMulActivationBackward(const Tensor& a, const Tensor& b,
                                Activation activation, const Tensor& x,
                                const MatMulOptions& options) {
  return Product(a, ValuesFor(a, b), nullptr, activation, &x, options);
}

Tensor MatMulActivationBackward(const Tensor& a, const QuantizedTensor& b,
                                Activation activation, const Tensor& x,
                                const MatMulOptions& options) {
  return Product(a, CodesFor(a, b, options), nullptr, activation, &x, options);
}

void MatMulAccumulate(const Tensor& a, const Tensor& b,
                      const MatMulOptions& options, const Tensor& out,
                      const Tensor* column_sums) {
  CHECK(a.dtype() == b.dtype()) << a.dtype() << " times " << b.dtype();
  const Tensor a2 = a.Reshape({-1, a.dim(-1)});
  const Tensor b2 = b.Reshape({-1, b.dim(-1)});
  const Matrices left = AsMatrices(a2.shape(), options.transpose_a);
  const Matrices right = AsMatrices(b2.shape(), options.transpose_b);
  CHECK_EQ(left.columns, right.rows) << a.shape() << " times " << b.shape();
  CHECK(out.shape() == (Shape{left.rows, right.columns}))
      << out.shape() << " += " << a.shape() << " times " << b.shape();
  CHECK(out.dtype() ==
        (a.dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32))
      << out.dtype();
  if (out.num_elements() == 0 || left.columns == 0) return;

  GemmSpec spec;
  spec.m = left.rows;
  spec.n = right.columns;
  spec.k = left.columns;
  spec.a = Strides(a2.dim(-1), options.transpose_a);
  spec.b = Strides(b2.dim(-1), options.transpose_b);
  spec.out = Strides(spec.n, false);
  spec.dtype = a.dtype();
  spec.out_dtype = out.dtype();
  spec.accumulate = true;
  GemmOperands operands = {.a = a.raw_data(), .b = b.raw_data()};
  if (column_sums != nullptr) {
    CHECK(options.transpose_a) << options.label;
    CHECK_EQ(column_sums->num_elements(), spec.m) << options.label;
    CHECK(column_sums->dtype() == out.dtype()) << column_sums->dtype();
    spec.row_sums = true;
    operands.row_sums = column_sums->raw_data();
  }
  RunGemm(spec, operands, nullptr, out, options.label);
}

Tensor MatMulFloat8(const QuantizedTensor& a, const QuantizedTensor& b,
                    const Tensor* bias, DType dtype, std::string_view label) {
  GemmSpec spec = SpecOfCodes(a, b, dtype, label);
  spec.out_dtype = dtype;
  spec.bias = bias != nullptr;
  CheckBias(bias, spec);
  Tensor out = Tensor::Empty(a.codes.device(), {spec.m, spec.n}, dtype,
                             MemoryCategory::kActivations, label);
  if (out.num_elements() == 0) return out;
  RunGemm(spec, OperandsOfCodes(a, b), bias, out, label);
  return out;
}

void MatMulFloat8Accumulate(const QuantizedTensor& a, const QuantizedTensor& b,
                            DType dtype, const Tensor& out,
                            std::string_view label) {
  GemmSpec spec = SpecOfCodes(a, b, dtype, label);
  CHECK(spec.one_scale) << label;
  CHECK(out.shape() == (Shape{spec.m, spec.n})) << label << " " << out.shape();
  CHECK(out.dtype() ==
        (dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32))
      << out.dtype();
  spec.out_dtype = out.dtype();
  spec.accumulate = true;
  if (out.num_elements() == 0 || spec.k == 0) return;
  RunGemm(spec, OperandsOfCodes(a, b), nullptr, out, label);
}

void AccumulateColumnSums(const Tensor& x, const Tensor& out) {
  const int64_t columns = x.dim(-1);
  CHECK_EQ(out.num_elements(), columns) << x.shape();
  CHECK(out.dtype() ==
        (x.dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32))
      << out.dtype();
  if (x.num_elements() == 0) return;
  Device& device = x.device();
  device.kernels().reduction.add_column_sums(
      device.stream(), x.dtype(), x.num_elements() / columns, columns,
      x.raw_data(), out.raw_data());
}

}  // namespace trireme
