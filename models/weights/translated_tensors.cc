#include "models/weights/translated_tensors.h"

#include <algorithm>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "runtime/core/status.h"

namespace trireme {
namespace {

class TranslatedTensors final : public TensorSource {
 public:
  TranslatedTensors(std::string origin, const std::vector<NamedShape>& made,
                    std::vector<WeightPiece> pieces,
                    std::shared_ptr<const TensorSource> source)
      : origin_(std::move(origin)), source_(std::move(source)) {
    for (const NamedShape& entry : made) made_[entry.name].shape = entry.shape;
    for (WeightPiece& piece : pieces) {
      made_.at(piece.parameter).pieces.push_back(std::move(piece));
    }
    for (auto& [name, tensor] : made_) {
      std::sort(tensor.pieces.begin(), tensor.pieces.end(),
                [](const WeightPiece& a, const WeightPiece& b) {
                  return a.parameter_begin < b.parameter_begin;
                });
    }
  }

  void SetConstant(const ConstantTensor& constant,
                   std::shared_ptr<const TensorSource> like) {
    Made& tensor = made_.at(constant.tensor.name);
    tensor.element = constant.element;
    tensor.like = std::move(like);
  }

  absl::Status Check(const std::string& name,
                     const Shape& shape) const override {
    const auto found = made_.find(name);
    if (found == made_.end()) {
      return NotFound("{}: found no '{}' of shape {}", origin_, name,
                      shape.ToString());
    }
    if (found->second.shape == shape) return absl::OkStatus();
    return FailedPrecondition("{}: '{}': found shape {}, expected {}", origin_,
                              name, found->second.shape.ToString(),
                              shape.ToString());
  }

  void Read(const std::string& name, int64_t begin,
            std::span<double> values) const override {
    const Made& tensor = made_.at(name);
    const int64_t end = begin + static_cast<int64_t>(values.size());
    if (tensor.like != nullptr) {
      tensor.like->Read(name, begin, values);
      return;
    }
    if (tensor.element != nullptr) {
      for (int64_t i = begin; i < end; ++i) {
        values[i - begin] = tensor.element(i);
      }
      return;
    }
    // The first piece that reaches beyond begin.
    auto piece = std::upper_bound(
        tensor.pieces.begin(), tensor.pieces.end(), begin,
        [](int64_t at, const WeightPiece& candidate) {
          return at < candidate.parameter_begin + candidate.view.num_elements();
        });
    for (int64_t at = begin; at < end; ++piece) {
      const int64_t piece_end =
          piece->parameter_begin + piece->view.num_elements();
      while (at < std::min(end, piece_end)) {
        const PiecePosition position =
            PositionInTensor(*piece, at - piece->parameter_begin);
        const int64_t run =
            std::min(position.run, std::min(end, piece_end) - at);
        source_->Read(piece->tensor,
                      piece->tensor_begin + position.tensor_offset,
                      values.subspan(at - begin, run));
        at += run;
      }
    }
  }

 private:
  struct Made {
    Shape shape;
    std::vector<WeightPiece> pieces;  // in the order of parameter_begin
    // Of a constant.
    std::function<double(int64_t)> element;
    std::shared_ptr<const TensorSource> like;
  };

  std::string origin_;
  std::shared_ptr<const TensorSource> source_;
  std::map<std::string, Made> made_;
};

}  // namespace

std::unique_ptr<TensorSource> ParametersOf(
    const NameTable& table, std::shared_ptr<const TensorSource> tensors,
    std::string origin) {
  return std::make_unique<TranslatedTensors>(std::move(origin),
                                             table.parameters(), table.pieces(),
                                             std::move(tensors));
}

std::unique_ptr<TensorSource> TensorsOf(
    const NameTable& table, std::shared_ptr<const TensorSource> parameters,
    std::shared_ptr<const TensorSource> like, std::string origin) {
  std::vector<WeightPiece> reversed;
  for (const WeightPiece& piece : table.pieces()) {
    reversed.push_back(Reversed(piece));
  }
  auto tensors = std::make_unique<TranslatedTensors>(
      std::move(origin), table.tensors(), std::move(reversed),
      std::move(parameters));
  for (const ConstantTensor& constant : table.constants()) {
    tensors->SetConstant(constant, like);
  }
  return tensors;
}

}  // namespace trireme
