#include "runtime/ops/cpu/convolution_kernels.h"

#include <omp.h>

#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "runtime/core/log.h"
#include "runtime/device/arena.h"
#include "runtime/ops/cpu/gemm.h"

namespace trireme {
namespace {

using dnnl::memory;

// Never destroyed: oneDNN's own statics may already be gone at exit.
const dnnl::engine& Engine() {
  static const dnnl::engine& engine =
      *new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// oneDNN plans its work, and its scratchpad, for as many threads as it expects:
// those that there will be.
class PlannedThreads {
 public:
  PlannedThreads() : before_(omp_get_max_threads()) {
    omp_set_num_threads(AvailableThreads());
  }
  ~PlannedThreads() { omp_set_num_threads(before_); }
  PlannedThreads(const PlannedThreads&) = delete;
  PlannedThreads& operator=(const PlannedThreads&) = delete;

 private:
  const int before_;
};

// A convolution as oneDNN has it: its kernels read weights in an order of their
// own, into which they are brought first. oneDNN keeps what it has generated
// for a problem, so that nothing is kept here.
struct OneDnnConvolution {
  explicit OneDnnConvolution(const ConvolutionProblem& p) {
    using Tag = memory::format_tag;
    constexpr auto kType = memory::data_type::f32;
    x = {{p.batch, p.in_channels, p.height, p.width}, kType, Tag::nhwc};
    y = {{p.batch, p.out_channels, p.out_height(), p.out_width()},
         kType,
         Tag::nhwc};
    const memory::dims of_weight = {p.out_channels, p.in_channels, p.kernel,
                                    p.kernel};
    weight = {of_weight, kType, Tag::oihw};
    bias = {{p.out_channels}, kType, Tag::x};
    const memory::desc any = {of_weight, kType, Tag::any};
    const memory::dims stride = {p.stride, p.stride};
    const memory::dims before = {p.padding_before, p.padding_before};
    // Zeros that no window reaches have no place in oneDNN's description.
    const auto after = [&](int64_t outputs, int64_t inputs) {
      return (outputs - 1) * p.stride + p.kernel - inputs - p.padding_before;
    };
    const memory::dims behind = {after(p.out_height(), p.height),
                                 after(p.out_width(), p.width)};
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    constexpr auto kKind = dnnl::prop_kind::forward_inference;
    constexpr auto kAlgorithm = dnnl::algorithm::convolution_direct;
    descriptor = dnnl::convolution_forward::primitive_desc(
        p.bias ? dnnl::convolution_forward::desc(
                     kKind, kAlgorithm, x, any, bias, y, stride, before, behind)
               : dnnl::convolution_forward::desc(kKind, kAlgorithm, x, any, y,
                                                 stride, before, behind),
        attributes, Engine());
    packed = descriptor.weights_desc();
    packing = dnnl::reorder::primitive_desc(Engine(), weight, Engine(), packed,
                                            attributes);
    // The two primitives use the scratchpad in turns.
    packed_at = Arena::Aligned(
        static_cast<int64_t>(std::max(descriptor.scratchpad_desc().get_size(),
                                      packing.scratchpad_desc().get_size())));
  }

  int64_t workspace_bytes() const {
    return packed_at + static_cast<int64_t>(packed.get_size());
  }

  memory::desc x, weight, bias, y, packed;
  dnnl::convolution_forward::primitive_desc descriptor;
  dnnl::reorder::primitive_desc packing;
  int64_t packed_at = 0;  // in the workspace
};

memory At(const memory::desc& desc, const void* data) {
  return {desc, Engine(), const_cast<void*>(data)};
}

void RunOneDnn(const ConvolutionProblem& problem,
               const ConvolutionOperands& operands) {
  const OneDnnConvolution convolution(problem);
  dnnl::stream stream(Engine());
  const memory packed =
      At(convolution.packed,
         static_cast<char*>(operands.workspace) + convolution.packed_at);
  std::unordered_map<int, memory> packing = {
      {DNNL_ARG_FROM, At(convolution.weight, operands.weight)},
      {DNNL_ARG_TO, packed},
      {DNNL_ARG_SCRATCHPAD,
       At(convolution.packing.scratchpad_desc(), operands.workspace)}};
  dnnl::reorder(convolution.packing).execute(stream, packing);
  std::unordered_map<int, memory> arguments = {
      {DNNL_ARG_SRC, At(convolution.x, operands.x)},
      {DNNL_ARG_WEIGHTS, packed},
      {DNNL_ARG_DST, At(convolution.y, operands.y)},
      {DNNL_ARG_SCRATCHPAD,
       At(convolution.descriptor.scratchpad_desc(), operands.workspace)}};
  if (problem.bias) {
    arguments.emplace(DNNL_ARG_BIAS, At(convolution.bias, operands.bias));
  }
  dnnl::convolution_forward(convolution.descriptor).execute(stream, arguments);
  stream.wait();
}

// The product of a window's elements and the weights of one output.
double Window(const ConvolutionProblem& p, const double* x,
              const double* weight, int64_t row, int64_t column) {
  double sum = 0;
  for (int64_t i = 0; i < p.kernel; ++i) {
    for (int64_t j = 0; j < p.kernel; ++j) {
      const int64_t y = row + i, z = column + j;
      if (y < 0 || y >= p.height || z < 0 || z >= p.width) continue;
      const double* pixel = x + (y * p.width + z) * p.in_channels;
      for (int64_t c = 0; c < p.in_channels; ++c) {
        sum += pixel[c] * weight[(c * p.kernel + i) * p.kernel + j];
      }
    }
  }
  return sum;
}

void RunFp64(const ConvolutionProblem& p, const ConvolutionOperands& operands) {
  const auto* x = static_cast<const double*>(operands.x);
  const auto* weight = static_cast<const double*>(operands.weight);
  const auto* bias = static_cast<const double*>(operands.bias);
  auto* y = static_cast<double*>(operands.y);
  const int64_t height = p.out_height(), width = p.out_width();
#pragma omp parallel for schedule(static)
  for (int64_t pixel = 0; pixel < p.batch * height * width; ++pixel) {
    const int64_t sample = pixel / (height * width);
    const int64_t row = pixel / width % height * p.stride - p.padding_before;
    const int64_t column = pixel % width * p.stride - p.padding_before;
    for (int64_t o = 0; o < p.out_channels; ++o) {
      y[pixel * p.out_channels + o] =
          (bias == nullptr ? 0 : bias[o]) +
          Window(p, x + sample * p.height * p.width * p.in_channels,
                 weight + o * p.in_channels * p.kernel * p.kernel, row, column);
    }
  }
}

}  // namespace

int64_t ConvolutionWorkspace(const ConvolutionProblem& problem) {
  int64_t bytes = 0;
  if (problem.dtype == DType::kFloat64) return bytes;
  const PlannedThreads threads;
  try {
    bytes = OneDnnConvolution(problem).workspace_bytes();
  } catch (const dnnl::error& e) {
    LOG(FATAL) << "oneDNN: " << e.what() << " for a convolution";
  }
  return bytes;
}

void ConvolutionKernel(const ConvolutionProblem& problem,
                       const ConvolutionOperands& operands) {
  if (problem.dtype == DType::kFloat64) return RunFp64(problem, operands);
  const PlannedThreads threads;
  try {
    RunOneDnn(problem, operands);
  } catch (const dnnl::error& e) {
    LOG(FATAL) << "oneDNN: " << e.what() << " for a convolution";
  }
}

}  // namespace trireme
