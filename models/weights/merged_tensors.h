// The weights of a model that trained in part, made whole as they are read.

#ifndef TRIREME_MODELS_WEIGHTS_MERGED_TENSORS_H_
#define TRIREME_MODELS_WEIGHTS_MERGED_TENSORS_H_

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "models/weights/tensor_source.h"
#include "parallel/parameter_store.h"

namespace trireme {

// The tensors that `is_trained` names from `trained`, all others from `base`.
std::unique_ptr<TensorSource> TrainedOverBase(
    std::shared_ptr<const TensorSource> base,
    std::shared_ptr<const TensorSource> trained,
    std::function<bool(const std::string& name)> is_trained);

// Those of `base`, with scale·B·A added to the weights of adapters
// (parallel/low_rank_adapter.h) of rank `rank`, in double; their factors are
// tensors of `factors`.
std::unique_ptr<TensorSource> MergeAdapters(
    std::shared_ptr<const TensorSource> base,
    std::shared_ptr<const TensorSource> factors,
    std::span<const StoredAdapter> adapters, int64_t rank, double scale);

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_MERGED_TENSORS_H_
