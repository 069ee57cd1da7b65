// cuDNN on the GPUs that this process drives, and what it has found for the
// problems that were met so far: a job has some few.

#ifndef TRIREME_RUNTIME_OPS_CUDA_CUDNN_PLANS_H_
#define TRIREME_RUNTIME_OPS_CUDA_CUDNN_PLANS_H_

#include <cudnn.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/status/statusor.h"
#include "runtime/core/log.h"
#include "runtime/ops/cuda/cudnn_graph.h"

namespace trireme {

class CudnnGpu {
 public:
  // The thread's current one. Null without a GPU, as where memory is predicted
  // for one, and without the library.
  static CudnnGpu* Current();

  explicit CudnnGpu(int index);

  int index() const { return index_; }
  int compute_capability_major() const { return compute_capability_major_; }
  const CudnnDescriptor& properties() const { return *properties_; }

  // Pointers by the tensors' numbers, as of CudnnPlan::Run.
  void Run(const CudnnPlan& plan, cudaStream_t stream,
           std::span<const int64_t> tensors, std::span<void* const> pointers,
           void* workspace);

 private:
  const int index_;
  int compute_capability_major_ = 0;
  cudnnHandle_t handle_ = nullptr;
  std::unique_ptr<CudnnDescriptor> properties_;
  std::mutex mutex_;  // of the handle's stream
};

// A kernel's operands are where cuDNN's plans take them.
bool AreAlignedForCudnn(std::span<void* const> pointers);

// The plans of one kind of problem, which has == and a hash.
template <typename Problem>
class CudnnPlans {
 public:
  // The error says why our own kernels are to compute it.
  using Find = absl::StatusOr<CudnnPlan> (*)(const Problem&, const CudnnGpu&);
  // As the log names a problem.
  using Name = std::string (*)(const Problem&);

  CudnnPlans(Find find, Name name) : find_(find), name_(name) {}

  // Null where our own kernels are to compute it: the log says so, once.
  const CudnnPlan* Of(const Problem& problem, const CudnnGpu& gpu) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto [found, added] =
        plans_.try_emplace(std::pair(gpu.index(), problem));
    if (!added) return found->second.get();
    absl::StatusOr<CudnnPlan> plan = find_(problem, gpu);
    if (plan.ok()) {
      found->second = std::make_unique<CudnnPlan>(*std::move(plan));
    } else {
      LOG(INFO) << name_(problem)
                << ", by kernels of our own: " << plan.status().message();
    }
    return found->second.get();
  }

 private:
  using Key = std::pair<int, Problem>;

  const Find find_;
  const Name name_;
  std::mutex mutex_;
  std::unordered_map<Key, std::unique_ptr<CudnnPlan>, absl::Hash<Key>> plans_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_CUDNN_PLANS_H_
