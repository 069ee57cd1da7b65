#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>

#include "runtime/device/cuda/emulation/cudnn_objects.h"

namespace trireme::cuda_emulation::cudnn {
namespace {

float Rounded(cudnnDataType_t type, float value) {
  switch (type) {
    case CUDNN_DATA_HALF:
      return __half2float(__float2half_rn(value));
    case CUDNN_DATA_BFLOAT16:
      return __bfloat162float(__float2bfloat16_rn(value));
    default:
      return value;
  }
}

float Load(cudnnDataType_t type, const void* from, int64_t i) {
  switch (type) {
    case CUDNN_DATA_HALF:
      return __half2float(static_cast<const __half*>(from)[i]);
    case CUDNN_DATA_BFLOAT16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(from)[i]);
    default:
      return static_cast<const float*>(from)[i];
  }
}

void Store(cudnnDataType_t type, float value, void* to, int64_t i) {
  switch (type) {
    case CUDNN_DATA_HALF:
      static_cast<__half*>(to)[i] = __float2half_rn(value);
      break;
    case CUDNN_DATA_BFLOAT16:
      static_cast<__nv_bfloat16*>(to)[i] = __float2bfloat16_rn(value);
      break;
    default:
      static_cast<float*>(to)[i] = value;
  }
}

// One run of a graph.
class Run {
 public:
  using Values = std::vector<float>;

  Run(const Object& graph, std::map<int64_t, void*> memory,
      std::map<int64_t, float> numbers)
      : graph_(graph),
        memory_(std::move(memory)),
        numbers_(std::move(numbers)) {}

  void Execute() {
    for (const ObjectPointer& operation :
         graph_.Of(CUDNN_ATTR_OPERATIONGRAPH_OPS).objects) {
      switch (operation->type) {
        case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
          Pointwise(*operation);
          break;
        case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
          Multiply(*operation);
          break;
        case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
          Sum(*operation);
          break;
        case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
          Reshape(*operation);
          break;
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
          Convolve(*operation);
          break;
        case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR:
          Attend(*operation);
          break;
        default:
          Refuse(fmt::format("cuDNN: operation {}",
                             static_cast<int>(operation->type)));
      }
    }
  }

 private:
  static Tensor TensorOf(const Object& operation,
                         cudnnBackendAttributeName_t name) {
    return Tensor(operation.Part(name));
  }

  Values Read(const Tensor& tensor) const {
    if (tensor.of_host) return {numbers_.at(tensor.number)};
    if (tensor.between) {
      const auto found = between_.find(tensor.number);
      if (found == between_.end()) {
        Refuse("cuDNN: a tensor is read before it is written");
      }
      return found->second;
    }
    Values values(tensor.elements());
    const void* const from = memory_.at(tensor.number);
    tensor.ForEach([&](int64_t i, int64_t place, const Sizes&) {
      values[i] = Load(tensor.type, from, place);
    });
    return values;
  }
  void Write(const Tensor& tensor, Values values) {
    if (tensor.between) {
      for (float& value : values) value = Rounded(tensor.type, value);
      if (!between_.emplace(tensor.number, std::move(values)).second) {
        Refuse("cuDNN: a tensor is written twice");
      }
      return;
    }
    void* const to = memory_.at(tensor.number);
    tensor.ForEach([&](int64_t i, int64_t place, const Sizes&) {
      Store(tensor.type, values[i], to, place);
    });
  }

  void Pointwise(const Object& operation) {
    const Tensor x = TensorOf(operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
    const Tensor y = TensorOf(operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    const auto mode =
        operation.Part(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)
            .Value<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE);
    const Values of_x = Read(x);
    Values result(y.elements());
    if (mode == CUDNN_POINTWISE_EXP) {
      CheckSizes(x.sizes == y.sizes);
      for (size_t i = 0; i < result.size(); ++i) result[i] = std::exp(of_x[i]);
      return Write(y, std::move(result));
    }
    if (mode != CUDNN_POINTWISE_ADD && mode != CUDNN_POINTWISE_MUL &&
        mode != CUDNN_POINTWISE_SUB) {
      Refuse(fmt::format("cuDNN: cudnnPointwiseMode_t {}",
                         static_cast<int>(mode)));
    }
    const Tensor b = TensorOf(operation, CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    const Values of_b = Read(b);
    y.ForEach([&](int64_t i, int64_t, const Sizes& at) {
      const float left = of_x[Broadcast(x, y, at)];
      const float right = of_b[Broadcast(b, y, at)];
      result[i] = mode == CUDNN_POINTWISE_MUL   ? left * right
                  : mode == CUDNN_POINTWISE_ADD ? left + right
                                                : left - right;
    });
    Write(y, std::move(result));
  }
  static int64_t Broadcast(const Tensor& x, const Tensor& y, Sizes at) {
    for (int i = 0; i < kRank; ++i) {
      CheckSizes(x.sizes[i] == y.sizes[i] || x.sizes[i] == 1);
      if (x.sizes[i] == 1) at[i] = 0;
    }
    return x.IndexOf(at);
  }

  void Multiply(const Object& operation) {
    const Tensor a = TensorOf(operation, CUDNN_ATTR_OPERATION_MATMUL_ADESC);
    const Tensor b = TensorOf(operation, CUDNN_ATTR_OPERATION_MATMUL_BDESC);
    const Tensor y = TensorOf(operation, CUDNN_ATTR_OPERATION_MATMUL_CDESC);
    CheckSizes(a.sizes[3] == b.sizes[2] && a.sizes[2] == y.sizes[2] &&
               b.sizes[3] == y.sizes[3]);
    for (int i = 0; i < 2; ++i) {
      CheckSizes(a.sizes[i] == y.sizes[i] && y.sizes[i] % b.sizes[i] == 0);
    }
    const Values of_a = Read(a), of_b = Read(b);
    Values result(y.elements());
    y.ForEach([&](int64_t i, int64_t, const Sizes& at) {
      double sum = 0;
      for (int64_t k = 0; k < a.sizes[3]; ++k) {
        const Sizes right = {at[0] * b.sizes[0] / y.sizes[0],
                             at[1] * b.sizes[1] / y.sizes[1], k, at[3]};
        sum += double{of_a[a.IndexOf({at[0], at[1], at[2], k})]} *
               of_b[b.IndexOf(right)];
      }
      result[i] = static_cast<float>(sum);
    });
    Write(y, std::move(result));
  }

  void Sum(const Object& operation) {
    const Tensor x = TensorOf(operation, CUDNN_ATTR_OPERATION_REDUCTION_XDESC);
    const Tensor y = TensorOf(operation, CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
    if (operation.Part(CUDNN_ATTR_OPERATION_REDUCTION_DESC)
            .Value<cudnnReduceTensorOp_t>(CUDNN_ATTR_REDUCTION_OPERATOR) !=
        CUDNN_REDUCE_TENSOR_ADD) {
      Refuse("cuDNN: reductions other than sums");
    }
    const Values of_x = Read(x);
    std::vector<double> sums(y.elements());
    x.ForEach([&](int64_t i, int64_t, Sizes at) {
      for (int n = 0; n < kRank; ++n) {
        CheckSizes(x.sizes[n] % y.sizes[n] == 0);
        at[n] /= x.sizes[n] / y.sizes[n];
      }
      sums[y.IndexOf(at)] += of_x[i];
    });
    Write(y, Values(sums.begin(), sums.end()));
  }

  // Sizes are [n, channels, height, width], wherever these lie in memory.
  void Convolve(const Object& operation) {
    const Tensor x =
        TensorOf(operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X);
    const Tensor weight =
        TensorOf(operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W);
    const Tensor y =
        TensorOf(operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y);
    const Object& how =
        operation.Part(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC);
    const auto stride =
        how.Values<int64_t>(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
    const auto before =
        how.Values<int64_t>(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
    const auto after =
        how.Values<int64_t>(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
    if (how.Value<cudnnConvolutionMode_t>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) !=
            CUDNN_CROSS_CORRELATION ||
        how.Values<int64_t>(CUDNN_ATTR_CONVOLUTION_DILATIONS) !=
            std::vector<int64_t>{1, 1} ||
        operation.Value<float>(
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA) != 1 ||
        operation.Value<float>(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA) !=
            0) {
      Refuse("cuDNN: convolutions other than plain ones");
    }
    CheckSizes(x.sizes[0] == y.sizes[0] && x.sizes[1] == weight.sizes[1] &&
               y.sizes[1] == weight.sizes[0]);
    for (int i = 0; i < 2; ++i) {
      const int64_t padded = x.sizes[2 + i] + before[i] + after[i];
      CheckSizes((padded - weight.sizes[2 + i]) / stride[i] + 1 ==
                 y.sizes[2 + i]);
    }
    const Values of_x = Read(x), of_weight = Read(weight);
    Values result(y.elements());
    y.ForEach([&](int64_t i, int64_t, const Sizes& at) {
      double sum = 0;
      for (int64_t p = 0; p < weight.sizes[2]; ++p) {
        for (int64_t q = 0; q < weight.sizes[3]; ++q) {
          const int64_t row = at[2] * stride[0] + p - before[0];
          const int64_t column = at[3] * stride[1] + q - before[1];
          if (row < 0 || row >= x.sizes[2] || column < 0 ||
              column >= x.sizes[3]) {
            continue;
          }
          for (int64_t c = 0; c < x.sizes[1]; ++c) {
            sum += double{of_weight[weight.IndexOf({at[1], c, p, q})]} *
                   of_x[x.IndexOf({at[0], c, row, column})];
          }
        }
      }
      result[i] = static_cast<float>(sum);
    });
    Write(y, std::move(result));
  }

  // Elements stay where they lie in memory.
  void Reshape(const Object& operation) {
    const Tensor x = TensorOf(operation, CUDNN_ATTR_OPERATION_RESHAPE_XDESC);
    const Tensor y = TensorOf(operation, CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
    const Values of_x = Read(x);
    std::map<int64_t, float> by_place;
    x.ForEach([&](int64_t i, int64_t place, const Sizes&) {
      by_place[place] = of_x[i];
    });
    Values result(y.elements());
    y.ForEach([&](int64_t i, int64_t place, const Sizes&) {
      const auto found = by_place.find(place);
      CheckSizes(found != by_place.end());
      result[i] = found->second;
    });
    Write(y, std::move(result));
  }

  void Attend(const Object& operation) {
    const Tensor q = TensorOf(operation, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC);
    const Tensor k = TensorOf(operation, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC);
    const Tensor v = TensorOf(operation, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC);
    const Tensor out = TensorOf(operation, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC);
    const Tensor statistics =
        TensorOf(operation, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC);
    const float scale =
        Read(TensorOf(operation, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC))[0];
    CheckSizes(k.sizes == v.sizes && q.sizes == out.sizes &&
               q.sizes[1] % k.sizes[1] == 0 && q.sizes[3] == k.sizes[3] &&
               q.sizes[0] == k.sizes[0]);
    const Values of_q = Read(q), of_k = Read(k), of_v = Read(v);
    Values result(out.elements()), log_sum_exps(statistics.elements());
    const int64_t keys = k.sizes[2], channels = q.sizes[3];
    const int64_t shared = q.sizes[1] / k.sizes[1];
    statistics.ForEach([&](int64_t row, int64_t, const Sizes& at) {
      std::vector<double> scores(keys);
      const int64_t from_q = q.IndexOf({at[0], at[1], at[2], 0});
      const auto from_k = [&](int64_t key) {
        return k.IndexOf({at[0], at[1] / shared, key, 0});
      };
      double highest = -INFINITY, total = 0;
      for (int64_t key = 0; key < keys; ++key) {
        for (int64_t c = 0; c < channels; ++c) {
          scores[key] += double{of_q[from_q + c]} * of_k[from_k(key) + c];
        }
        scores[key] *= scale;
        highest = std::max(highest, scores[key]);
      }
      for (double& score : scores) total += score = std::exp(score - highest);
      log_sum_exps[row] = static_cast<float>(highest + std::log(total));
      for (int64_t c = 0; c < channels; ++c) {
        double sum = 0;
        for (int64_t key = 0; key < keys; ++key) {
          sum += Rounded(q.type, static_cast<float>(scores[key])) *
                 of_v[from_k(key) + c];
        }
        result[out.IndexOf({at[0], at[1], at[2], c})] =
            static_cast<float>(sum / total);
      }
    });
    Write(out, std::move(result));
    Write(statistics, std::move(log_sum_exps));
  }

  static void CheckSizes(bool match) {
    if (!match) Refuse("cuDNN: sizes of an operation's tensors do not match");
  }

  const Object& graph_;
  const std::map<int64_t, void*> memory_;
  const std::map<int64_t, float> numbers_;
  std::map<int64_t, Values> between_;
};

}  // namespace

void RunGraph(const Object& graph, const std::map<int64_t, void*>& memory,
              const std::map<int64_t, float>& numbers) {
  Run(graph, memory, numbers).Execute();
}

}  // namespace trireme::cuda_emulation::cudnn
