// The weights of a model that trained in part, made whole as they are read.

#ifndef TRIREME_MODELS_WEIGHTS_MERGED_TENSORS_H_
#define TRIREME_MODELS_WEIGHTS_MERGED_TENSORS_H_

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/weights/tensor_source.h"
#include "parallel/parameters/parameter_store.h"

namespace trireme {

// The tensors that `is_trained` names from `trained`, all others from `base`.
std::unique_ptr<TensorSource> TrainedOverBase(
    std::shared_ptr<const TensorSource> base,
    std::shared_ptr<const TensorSource> trained,
    std::function<bool(const std::string& name)> is_trained);

struct MergedAdapters {
  std::vector<StoredAdapter> adapters;
  int64_t rank = 0;
  double scale = 1;
  bool decomposed = false;
};

// Those of `base`, the weights of adapters (parallel/layers/low_rank_adapter.h)
// with scale·B·A added to them and, where they are decomposed, each row scaled
// to its magnitude, in double; the adapters' tensors are those of `factors`. A
// decomposed weight is read twice: the norms of its rows first.
std::unique_ptr<TensorSource> MergeAdapters(
    std::shared_ptr<const TensorSource> base,
    std::shared_ptr<const TensorSource> factors, MergedAdapters merged);

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_MERGED_TENSORS_H_
