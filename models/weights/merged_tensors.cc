#include "models/weights/merged_tensors.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "parallel/parameters/trained_parameters.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr char kWeight[] = ".weight";

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
                 MergedAdapters merged)
      : base_(std::move(base)),
        factors_(std::move(factors)),
        merged_(std::move(merged)) {
    for (const StoredAdapter& adapter : merged_.adapters) {
      adapters_[adapter.layer + kWeight] = &adapter;
    }
  }

  absl::Status Check(const std::string& name,
                     const Shape& shape) const override {
    RETURN_IF_ERROR(base_->Check(name, shape));
    const auto found = adapters_.find(name);
    if (found == adapters_.end()) return absl::OkStatus();
    const StoredAdapter& adapter = *found->second;
    RETURN_IF_ERROR(CheckFactors(adapter, shape));
    if (merged_.decomposed) {
      RETURN_IF_ERROR(
          factors_->Check(adapter.output_layer + kMagnitude, RowsOf(shape)));
      for (const StoredAdapter* other : LayersOf(adapter)) {
        Shape of_other = shape;
        of_other.set_dim(-1, other->in);
        RETURN_IF_ERROR(base_->Check(other->layer + kWeight, of_other));
        RETURN_IF_ERROR(CheckFactors(*other, of_other));
      }
    }
    const std::lock_guard lock(mutex_);
    rows_[name] = shape.num_elements() / shape.dim(-1);
    return absl::OkStatus();
  }

  void Read(const std::string& name, int64_t begin,
            std::span<double> values) const override {
    const auto found = adapters_.find(name);
    if (found == adapters_.end()) return base_->Read(name, begin, values);
    const std::shared_ptr<const Weight> weight = WeightOf(*found->second);
    ReadSum(weight->product, begin, values);
    if (weight->scales.empty()) return;
    const int64_t columns = weight->product.columns;
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] *= weight->scales[(begin + static_cast<int64_t>(i)) / columns];
    }
  }

 private:
  // scale·B·A of a layer.
  struct Product {
    std::string layer;
    int64_t rows = 0;
    int64_t columns = 0;
    int64_t groups = 1;
    std::vector<double> a;  // [groups, rank, columns]
    std::vector<double> b;  // [rows, rank], times scale
  };
  struct Weight {
    Product product;
    std::vector<double> scales;  // of rows; empty: they stay
  };

  static Shape RowsOf(const Shape& weight) {
    return weight.rank() == 2 ? Shape{weight.dim(0)}
                              : Shape{weight.dim(0), weight.dim(1)};
  }

  absl::Status CheckFactors(const StoredAdapter& adapter,
                            const Shape& shape) const {
    const int64_t in = shape.dim(-1);
    RETURN_IF_ERROR(factors_->Check(
        adapter.layer + kInputFactor,
        adapter.groups == 1 ? Shape{merged_.rank, in}
                            : Shape{adapter.groups, merged_.rank, in}));
    Shape output = shape;
    output.set_dim(-1, merged_.rank);
    return factors_->Check(adapter.output_layer + kOutputFactor, output);
  }

  // Those whose products go through one B, and are one layer to a norm.
  std::vector<const StoredAdapter*> LayersOf(
      const StoredAdapter& adapter) const {
    std::vector<const StoredAdapter*> layers;
    for (const StoredAdapter& other : merged_.adapters) {
      if (other.output_layer == adapter.output_layer) layers.push_back(&other);
    }
    return layers;
  }

  Product ReadProduct(const StoredAdapter& adapter, int64_t rows) const {
    Product product = {.layer = adapter.layer,
                       .rows = rows,
                       .columns = adapter.in,
                       .groups = adapter.groups};
    product.a.resize(product.groups * merged_.rank * product.columns);
    product.b.resize(rows * merged_.rank);
    factors_->Read(adapter.layer + kInputFactor, 0, product.a);
    factors_->Read(adapter.output_layer + kOutputFactor, 0, product.b);
    for (double& b : product.b) b *= merged_.scale;
    return product;
  }

  // Elements of W + scale·B·A from `begin` on.
  void ReadSum(const Product& product, int64_t begin,
               std::span<double> values) const {
    base_->Read(product.layer + kWeight, begin, values);
    const int64_t rank = merged_.rank;
    const int64_t columns = product.columns;
    const int64_t rows_of_group = product.rows / product.groups;
    const int64_t end = begin + static_cast<int64_t>(values.size());
    for (int64_t at = begin; at < end;) {
      const int64_t row = at / columns;
      const int64_t first = at % columns;
      const int64_t count = std::min(columns - first, end - at);
      double* const out = values.data() + (at - begin);
      const double* const a =
          product.a.data() + row / rows_of_group * rank * columns + first;
      for (int64_t k = 0; k < rank; ++k) {
        const double b = product.b[row * rank + k];
        for (int64_t i = 0; i < count; ++i) out[i] += b * a[k * columns + i];
      }
      at += count;
    }
  }

  // Magnitudes over norms. A row of zeros has no direction and stays.
  std::vector<double> ScalesOf(const StoredAdapter& adapter,
                               int64_t rows) const {
    std::vector<double> squares(rows);
    for (const StoredAdapter* layer : LayersOf(adapter)) {
      const Product product = ReadProduct(*layer, rows);
      std::vector<double> row(product.columns);
      for (int64_t i = 0; i < rows; ++i) {
        ReadSum(product, i * product.columns, row);
        for (const double element : row) squares[i] += element * element;
      }
    }
    std::vector<double> scales(rows);
    factors_->Read(adapter.output_layer + kMagnitude, 0, scales);
    for (int64_t i = 0; i < rows; ++i) {
      scales[i] = squares[i] > 0 ? scales[i] / std::sqrt(squares[i]) : 0.0;
    }
    return scales;
  }

  // Kept for the weight that was read last: a rank reads it row by row.
  std::shared_ptr<const Weight> WeightOf(const StoredAdapter& adapter) const {
    const std::lock_guard lock(mutex_);
    if (last_ != nullptr && last_->product.layer == adapter.layer) return last_;
    const int64_t rows = rows_.at(adapter.layer + kWeight);
    auto weight = std::make_shared<Weight>();
    weight->product = ReadProduct(adapter, rows);
    if (merged_.decomposed) weight->scales = ScalesOf(adapter, rows);
    last_ = weight;
    return weight;
  }

  std::shared_ptr<const TensorSource> base_;
  std::shared_ptr<const TensorSource> factors_;
  const MergedAdapters merged_;
  std::map<std::string, const StoredAdapter*> adapters_;  // by weight
  mutable std::mutex mutex_;
  mutable std::map<std::string, int64_t> rows_;  // of weights that were checked
  mutable std::shared_ptr<const Weight> last_;
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
    std::shared_ptr<const TensorSource> factors, MergedAdapters merged) {
  return std::make_unique<AdaptedTensors>(std::move(base), std::move(factors),
                                          std::move(merged));
}

}  // namespace trireme
