#include "runtime/ops/cpu/onednn_gemm.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <span>

#include "runtime/core/log.h"
#include "runtime/device/arena.h"
#include "runtime/ops/cpu/gemm_kernels.h"
#include "runtime/ops/cpu/parallel_rows.h"

namespace trireme {
namespace {

using dnnl::memory;

// Everything on the host shares it. Never destroyed, like the GemmCache.
const dnnl::engine& Engine() {
  static const dnnl::engine& engine =
      *new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

bool HasBFloat16() {
  static const bool has = [] {
    const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
    return isa == dnnl::cpu_isa::avx512_core_bf16 ||
           isa == dnnl::cpu_isa::avx512_core_amx;
  }();
  return has;
}

memory::data_type DataType(DType dtype) {
  return dtype == DType::kBFloat16 ? memory::data_type::bf16
                                   : memory::data_type::f32;
}

// Sets the calling thread's OpenMP thread count for a scope: oneDNN plans its
// work (and its scratchpad) for that many.
class ScopedThreads {
 public:
  explicit ScopedThreads(int threads) : before_(omp_get_max_threads()) {
    omp_set_num_threads(threads);
  }
  ~ScopedThreads() { omp_set_num_threads(before_); }
  ScopedThreads(const ScopedThreads&) = delete;
  ScopedThreads& operator=(const ScopedThreads&) = delete;

 private:
  const int before_;
};

// A large bf16 product first brings b into the order in which its kernel reads
// it: left to itself, oneDNN does so again for every block of rows, which takes
// several percent of the time. Not for small products (attention's blocks), nor
// where the workspace would be large.
constexpr int64_t kMinPackedWork = int64_t{1} << 27;
constexpr int64_t kMaxPackedBytes = int64_t{16} << 20;

class OneDnnGemm final : public Gemm {
 public:
  explicit OneDnnGemm(const CpuGemmSpec& spec) : spec_(spec) {
    const ScopedThreads threads(spec.threads);
    const int64_t b_batch = spec.b.batch == 0 ? 1 : spec.batch;
    a_ = Matrix(spec.batch, spec.m, spec.k, spec.a, spec.dtype);
    b_ = Matrix(b_batch, spec.k, spec.n, spec.b, spec.dtype);
    out_ = Matrix(spec.batch, spec.m, spec.n, spec.out, spec.out_dtype);
    bias_ = Matrix(1, 1, spec.n, {spec.n, spec.n, 1}, spec.dtype);
    dnnl::post_ops post_ops;
    if (spec.accumulate) post_ops.append_sum(1.0f);
    if (spec.activation == Activation::kGeluTanh) {
      post_ops.append_eltwise(1.0f, dnnl::algorithm::eltwise_gelu_tanh, 0, 0);
    } else if (spec.activation == Activation::kSilu) {
      post_ops.append_eltwise(1.0f, dnnl::algorithm::eltwise_swish, 1.0f, 0);
    } else if (spec.activation == Activation::kGelu) {
      post_ops.append_eltwise(1.0f, dnnl::algorithm::eltwise_gelu_erf, 0, 0);
    } else if (spec.activation == Activation::kRelu) {
      post_ops.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0, 0);
    }
    dnnl::primitive_attr attributes;
    attributes.set_post_ops(post_ops);
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    try {
      const auto descriptor = [&](const memory::desc& b) {
        return dnnl::matmul::primitive_desc(
            spec.bias ? dnnl::matmul::desc(a_, b, bias_, out_)
                      : dnnl::matmul::desc(a_, b, out_),
            attributes, Engine());
      };
      if (MayPack(spec)) {
        descriptor_ = descriptor(
            {{spec.k, spec.n}, DataType(spec.dtype), memory::format_tag::any});
        packed_ = descriptor_.weights_desc();
        packs_ = packed_ != b_;
      } else {
        descriptor_ = descriptor(b_);
      }
      if (packs_) {
        dnnl::primitive_attr reorder_attributes;
        reorder_attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
        reorder_descriptor_ = dnnl::reorder::primitive_desc(
            Engine(), b_, Engine(), packed_, reorder_attributes);
      }
      // The two primitives use the scratchpad in turns.
      packed_at_ = Arena::Aligned(static_cast<int64_t>(
          std::max(descriptor_.scratchpad_desc().get_size(),
                   packs_ ? reorder_descriptor_.scratchpad_desc().get_size()
                          : size_t{0})));
    } catch (const dnnl::error& e) {
      LOG(FATAL) << "oneDNN: " << e.what() << " for " << spec.ToString();
    }
  }

  int64_t workspace_bytes() const override {
    return packs_ ? packed_at_ + static_cast<int64_t>(packed_.get_size())
                  : packed_at_;
  }

  void Run(const void* a, const void* b, const void* bias, void* out,
           void* workspace) const override {
    const ScopedThreads threads(spec_.threads);
    try {
      MakePrimitives();
      dnnl::stream stream(Engine());
      if (packs_) {
        void* packed = static_cast<char*>(workspace) + packed_at_;
        Reorder(stream, b, packed, workspace);
        b = packed;
      }
      const Argument product[] = {
          {DNNL_ARG_SRC, a_, a},
          {DNNL_ARG_WEIGHTS, packs_ ? packed_ : b_, b},
          {DNNL_ARG_DST, out_, out},
          {DNNL_ARG_SCRATCHPAD, descriptor_.scratchpad_desc(), workspace},
          {DNNL_ARG_BIAS, bias_, bias}};
      Execute(primitive_, stream, {product, spec_.bias ? 5u : 4u});
      stream.wait();
    } catch (const dnnl::error& e) {
      LOG(FATAL) << "oneDNN: " << e.what() << " for " << spec_.ToString();
    }
  }

 private:
  struct Argument {
    int which;
    const memory::desc& desc;
    const void* data;
  };

  static bool MayPack(const CpuGemmSpec& spec) {
    return spec.dtype == DType::kBFloat16 && spec.batch == 1 &&
           spec.m * spec.n * spec.k >= kMinPackedWork &&
           spec.k * spec.n * DTypeSize(spec.dtype) <= kMaxPackedBytes;
  }

  // At the first run.
  void MakePrimitives() const {
    std::call_once(once_, [&] {
      primitive_ = dnnl::matmul(descriptor_);
      if (packs_) reorder_ = dnnl::reorder(reorder_descriptor_);
    });
  }

  void Reorder(const dnnl::stream& stream, const void* b, void* packed,
               void* workspace) const {
    const Argument packing[] = {
        {DNNL_ARG_FROM, b_, b},
        {DNNL_ARG_TO, packed_, packed},
        {DNNL_ARG_SCRATCHPAD, reorder_descriptor_.scratchpad_desc(),
         workspace}};
    Execute(reorder_, stream, packing);
  }

  static void Execute(const dnnl::primitive& primitive,
                      const dnnl::stream& stream,
                      std::span<const Argument> arguments) {
    std::array<dnnl_exec_arg_t, 5> executed;
    std::array<memory, 5> memories;
    int count = 0;
    for (const Argument& argument : arguments) {
      memories[count] =
          memory(argument.desc, Engine(), const_cast<void*>(argument.data));
      executed[count] = {argument.which, memories[count].get()};
      ++count;
    }
    dnnl::error::wrap_c_api(
        dnnl_primitive_execute(primitive.get(), stream.get(), count,
                               executed.data()),
        "execution failed");
  }

  // Two dims if the product is not batched: oneDNN has more kernels for them.
  memory::desc Matrix(int64_t batch, int64_t rows, int64_t columns,
                      const MatrixStrides& strides, DType dtype) const {
    if (spec_.batch == 1) {
      return {{rows, columns}, DataType(dtype), {strides.row, strides.column}};
    }
    return {{batch, rows, columns},
            DataType(dtype),
            {strides.batch, strides.row, strides.column}};
  }

  const CpuGemmSpec spec_;
  memory::desc a_, b_, bias_, out_;
  dnnl::matmul::primitive_desc descriptor_;
  bool packs_ = false;
  memory::desc packed_;  // b, if it is packed
  dnnl::reorder::primitive_desc reorder_descriptor_;
  int64_t packed_at_ = 0;  // in the workspace
  mutable std::once_flag once_;
  mutable dnnl::matmul primitive_;
  mutable dnnl::reorder reorder_;
};

// Operands of a 16-bit type that has no arithmetic here (fp16; bf16 on older
// processors): dense fp32 copies of them, an fp32 product, and its rounding.
template <typename T>
class WideningGemm final : public Gemm {
 public:
  explicit WideningGemm(const CpuGemmSpec& spec)
      : spec_(spec), wide_(Widened(spec)) {
    const int64_t b_batch = spec.b.batch == 0 ? 1 : spec.batch;
    a_at_ = Arena::Aligned(wide_.workspace_bytes());
    b_at_ = a_at_ + Floats(spec.batch * spec.m * spec.k);
    bias_at_ = b_at_ + Floats(b_batch * spec.k * spec.n);
    out_at_ = bias_at_ + Floats(spec.bias ? spec.n : 0);
    workspace_bytes_ =
        out_at_ + Floats(RoundsResult() ? spec.batch * spec.m * spec.n : 0);
  }

  int64_t workspace_bytes() const override { return workspace_bytes_; }

  void Run(const void* a, const void* b, const void* bias, void* out,
           void* workspace) const override {
    const CpuGemmSpec& s = spec_;
    const ScopedThreads threads(s.threads);
    char* base = static_cast<char*>(workspace);
    auto floats = [&](int64_t at) {
      return reinterpret_cast<float*>(base + at);
    };
    Widen(a, s.a, s.batch, s.m, s.k, floats(a_at_));
    Widen(b, s.b, s.b.batch == 0 ? 1 : s.batch, s.k, s.n, floats(b_at_));
    if (s.bias) {
      WidenRow(static_cast<const T*>(bias), s.n, floats(bias_at_));
    }
    wide_.Run(floats(a_at_), floats(b_at_), floats(bias_at_),
              RoundsResult() ? floats(out_at_) : out, workspace);
    if (!RoundsResult()) return;
    ForRows(s.batch * s.m, s.n, [&](int64_t row) {
      RoundRow(floats(out_at_) + row * s.n, s.n,
               static_cast<T*>(out) + row / s.m * s.out.batch +
                   row % s.m * s.out.row);
    });
  }

 private:
  static int64_t Floats(int64_t count) {
    return Arena::Aligned(count * static_cast<int64_t>(sizeof(float)));
  }

  bool RoundsResult() const { return IsHalf(spec_.out_dtype); }

  // Dense copies keep the orientation of their source.
  static MatrixStrides Dense(const MatrixStrides& from, int64_t rows,
                             int64_t columns) {
    const int64_t batch = from.batch == 0 ? 0 : rows * columns;
    return from.column == 1 ? MatrixStrides{batch, columns, 1}
                            : MatrixStrides{batch, 1, rows};
  }

  static CpuGemmSpec Widened(const CpuGemmSpec& spec) {
    CpuGemmSpec wide = spec;
    wide.dtype = DType::kFloat32;
    wide.a = Dense(spec.a, spec.m, spec.k);
    wide.b = Dense(spec.b, spec.k, spec.n);
    if (IsHalf(spec.out_dtype)) {
      wide.out_dtype = DType::kFloat32;
      wide.out = {spec.m * spec.n, spec.n, 1};
    }
    return wide;
  }

  void Widen(const void* from, const MatrixStrides& strides, int64_t batch,
             int64_t rows, int64_t columns, float* to) const {
    const auto* data = static_cast<const T*>(from);
    const bool row_major = strides.column == 1;
    const int64_t lines = row_major ? rows : columns;
    const int64_t length = row_major ? columns : rows;
    const int64_t stride = row_major ? strides.row : strides.column;
    ForRows(batch * lines, length, [&](int64_t line) {
      WidenRow(data + line / lines * strides.batch + line % lines * stride,
               length, to + line * length);
    });
  }

  // On the product's threads. A product of one thread may lie in a parallel
  // region, and begins none.
  template <typename F>
  void ForRows(int64_t rows, int64_t columns, F&& f) const {
    if (spec_.threads > 1) {
      ParallelRows(rows, columns, f);
    } else {
      for (int64_t row = 0; row < rows; ++row) f(row);
    }
  }

  const CpuGemmSpec spec_;
  const OneDnnGemm wide_;
  int64_t a_at_, b_at_, bias_at_, out_at_, workspace_bytes_;
};

}  // namespace

std::unique_ptr<Gemm> MakeOneDnnGemm(const CpuGemmSpec& spec) {
  if (spec.dtype == DType::kBFloat16 && !HasBFloat16()) {
    return std::make_unique<WideningGemm<BFloat16>>(spec);
  }
  if (spec.dtype == DType::kFloat16) {
    return std::make_unique<WideningGemm<Float16>>(spec);
  }
  return std::make_unique<OneDnnGemm>(spec);
}

}  // namespace trireme
