#include "models/weights/merged_tensors.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "runtime/core/status.h"

namespace trireme {
namespace {

class OverlaidTensors final : public TensorSource {
 public:
  OverlaidTensors(std::shared_ptr<const TensorSource> base,
                  std::shared_ptr<const TensorSource> trained,
                  std::function<bool(const std::string&)> is_trained)
      : base_(std::move(base)),
        trained_(std::move(trained)),
        is_trained_(std::move(is_trained)) {}

  absl::Status Check(const std::string& name,
                     const Shape& shape) const override {
    return Of(name).Check(name, shape);
  }
  void Read(const std::string& name, int64_t begin,
            std::span<double> values) const override {
    Of(name).Read(name, begin, values);
  }

 private:
  const TensorSource& Of(const std::string& name) const {
    return is_trained_(name) ? *trained_ : *base_;
  }

  std::shared_ptr<const TensorSource> base_;
  std::shared_ptr<const TensorSource> trained_;
  std::function<bool(const std::string&)> is_trained_;
};

class AdaptedTensors final : public TensorSource {
 public:
  AdaptedTensors(std::shared_ptr<const TensorSource> base,
                 std::shared_ptr<const TensorSource> factors,
                 std::span<const StoredAdapter> adapters, int64_t rank,
                 double scale)
      : base_(std::move(base)),
        factors_(std::move(factors)),
        rank_(rank),
        scale_(scale) {
    for (const StoredAdapter& adapter : adapters) {
      adapters_[adapter.layer + ".weight"] = adapter;
    }
  }

  absl::Status Check(const std::string& name,
                     const Shape& shape) const override {
    RETURN_IF_ERROR(base_->Check(name, shape));
    const auto found = adapters_.find(name);
    if (found == adapters_.end()) return absl::OkStatus();
    const StoredAdapter& adapter = found->second;
    const int64_t in = shape.dim(-1);
    RETURN_IF_ERROR(factors_->Check(adapter.layer + kInputFactor,
                                    adapter.groups == 1
                                        ? Shape{rank_, in}
                                        : Shape{adapter.groups, rank_, in}));
    Shape output = shape;
    output.set_dim(-1, rank_);
    RETURN_IF_ERROR(
        factors_->Check(adapter.output_layer + kOutputFactor, output));
    const std::lock_guard lock(mutex_);
    sizes_[name] = {.rows = shape.num_elements() / in, .columns = in};
    return absl::OkStatus();
  }

  void Read(const std::string& name, int64_t begin,
            std::span<double> values) const override {
    base_->Read(name, begin, values);
    if (!adapters_.contains(name)) return;
    const std::shared_ptr<const Factors> factors = FactorsOf(name);
    const auto [rows, columns] = factors->size;
    const int64_t rows_of_group = rows / factors->groups;
    const int64_t end = begin + static_cast<int64_t>(values.size());
    for (int64_t at = begin; at < end;) {
      const int64_t row = at / columns;
      const int64_t first = at % columns;
      const int64_t count = std::min(columns - first, end - at);
      double* const out = values.data() + (at - begin);
      const double* const a =
          factors->a.data() + row / rows_of_group * rank_ * columns + first;
      for (int64_t k = 0; k < rank_; ++k) {
        const double b = scale_ * factors->b[row * rank_ + k];
        for (int64_t i = 0; i < count; ++i) out[i] += b * a[k * columns + i];
      }
      at += count;
    }
  }

 private:
  struct Size {
    int64_t rows = 0;
    int64_t columns = 0;
  };
  struct Factors {
    std::string weight;
    Size size;
    int64_t groups = 1;
    std::vector<double> a;  // [groups, rank, columns]
    std::vector<double> b;  // [rows, rank]
  };

  // Kept for the weight that was read last: a rank reads it row by row.
  std::shared_ptr<const Factors> FactorsOf(const std::string& weight) const {
    const std::lock_guard lock(mutex_);
    if (last_ != nullptr && last_->weight == weight) return last_;
    const StoredAdapter& adapter = adapters_.at(weight);
    auto factors = std::make_shared<Factors>();
    factors->weight = weight;
    factors->size = sizes_.at(weight);
    factors->groups = adapter.groups;
    factors->a.resize(adapter.groups * rank_ * factors->size.columns);
    factors->b.resize(factors->size.rows * rank_);
    factors_->Read(adapter.layer + kInputFactor, 0, factors->a);
    factors_->Read(adapter.output_layer + kOutputFactor, 0, factors->b);
    last_ = factors;
    return factors;
  }

  std::shared_ptr<const TensorSource> base_;
  std::shared_ptr<const TensorSource> factors_;
  std::map<std::string, StoredAdapter> adapters_;  // by weight
  int64_t rank_;
  double scale_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, Size> sizes_;  // of weights that were checked
  mutable std::shared_ptr<const Factors> last_;
};

}  // namespace

std::unique_ptr<TensorSource> TrainedOverBase(
    std::shared_ptr<const TensorSource> base,
    std::shared_ptr<const TensorSource> trained,
    std::function<bool(const std::string& name)> is_trained) {
  return std::make_unique<OverlaidTensors>(std::move(base), std::move(trained),
                                           std::move(is_trained));
}

std::unique_ptr<TensorSource> MergeAdapters(
    std::shared_ptr<const TensorSource> base,
    std::shared_ptr<const TensorSource> factors,
    std::span<const StoredAdapter> adapters, int64_t rank, double scale) {
  return std::make_unique<AdaptedTensors>(std::move(base), std::move(factors),
                                          adapters, rank, scale);
}

}  // namespace trireme
