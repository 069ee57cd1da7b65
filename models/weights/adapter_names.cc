#include "models/weights/adapter_names.h"

#include <algorithm>
#include <map>
#include <utility>

#include "parallel/parameters/trained_parameters.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr char kPrefix[] = "transformer.";
constexpr std::string_view kWeight = ".weight";

// Where a group's rows lie in the weight of its module.
struct Placement {
  std::string module;
  int64_t in = 0;  // the module's
  int64_t first_column = 0;
  std::vector<int64_t> rows;  // of the module, for each row of the group
};

class Weights {
 public:
  explicit Weights(const NameTable& table) : class_name_(table.class_name()) {
    for (const NamedShape& parameter : table.parameters()) {
      parameters_[parameter.name].shape = parameter.shape;
    }
    for (const NamedShape& tensor : table.tensors()) {
      tensors_[tensor.name] = tensor.shape;
    }
    for (const WeightPiece& piece : table.pieces()) {
      parameters_.at(piece.parameter).pieces.push_back(&piece);
    }
    for (auto& [name, parameter] : parameters_) {
      std::sort(parameter.pieces.begin(), parameter.pieces.end(),
                [](const WeightPiece* a, const WeightPiece* b) {
                  return a->parameter_begin < b->parameter_begin;
                });
    }
  }

  // [out, in] or [parts, out/parts, in].
  const Shape& ShapeOf(const std::string& layer) const {
    return parameters_.at(layer + std::string(kWeight)).shape;
  }

  absl::StatusOr<Placement> Place(const StoredAdapter& adapter,
                                  int group) const {
    const std::string weight = adapter.layer + std::string(kWeight);
    const Parameter& parameter = parameters_.at(weight);
    const int64_t in = parameter.shape.dim(-1);
    const int64_t rows = parameter.shape.num_elements() / in / adapter.groups;
    const auto refused = [&] {
      return FailedPrecondition(
          "'{}': found an adapter, expected none: {} has no linear module that "
          "is this layer, or a part of it",
          adapter.layer, class_name_);
    };
    Placement placement;
    std::string tensor;
    for (int64_t row = group * rows; row < (group + 1) * rows; ++row) {
      const int64_t first = row * in;
      const auto next =
          std::upper_bound(parameter.pieces.begin(), parameter.pieces.end(),
                           first, [](int64_t at, const WeightPiece* piece) {
                             return at < piece->parameter_begin;
                           });
      const WeightPiece& piece = **std::prev(next);
      const PiecePosition position =
          PositionInTensor(piece, first - piece.parameter_begin);
      // A row is a run of the tensor's elements.
      if (in > 1 && position.run < in) return refused();
      if (tensor.empty()) {
        tensor = piece.tensor;
        if (!tensor.ends_with(kWeight)) return refused();
        placement.module = tensor.substr(0, tensor.size() - kWeight.size());
        const Shape& shape = tensors_.at(tensor);
        placement.in = shape.elements_after(0);
        if (shape.dim(0) != rows) return refused();
      }
      const int64_t at = piece.tensor_begin + position.tensor_offset;
      const int64_t column = at % placement.in;
      if (placement.rows.empty()) placement.first_column = column;
      if (piece.tensor != tensor || column != placement.first_column) {
        return refused();
      }
      placement.rows.push_back(at / placement.in);
    }
    return placement;
  }

 private:
  struct Parameter {
    Shape shape;
    std::vector<const WeightPiece*> pieces;  // in the order of parameter_begin
  };

  std::string class_name_;
  std::map<std::string, Parameter> parameters_;
  std::map<std::string, Shape> tensors_;
};

// Adapters one by one to a table.
class Adapters {
 public:
  Adapters(const NameTable& weights, int64_t rank, bool decompose)
      : weights_(weights),
        rank_(rank),
        decompose_(decompose),
        table_(weights.class_name(), "", "") {}

  absl::Status Add(const StoredAdapter& adapter) {
    const Shape& shape = weights_.ShapeOf(adapter.layer);
    const int64_t in = shape.dim(-1);
    const std::string a = adapter.layer + kInputFactor;
    const std::string b = adapter.layer + kOutputFactor;
    const std::string magnitude = adapter.layer + kMagnitude;
    const bool has_output = adapter.layer == adapter.output_layer;
    const bool has_magnitude = has_output && decompose_;
    table_.DeclareParameter({a, adapter.groups == 1
                                    ? Shape{rank_, in}
                                    : Shape{adapter.groups, rank_, in}});
    if (has_output) {
      Shape output = shape;
      output.set_dim(-1, rank_);
      table_.DeclareParameter({b, output});
    }
    if (has_magnitude) {
      table_.DeclareParameter(
          {magnitude, shape.rank() == 2 ? Shape{shape.dim(0)}
                                        : Shape{shape.dim(0), shape.dim(1)}});
    }
    for (int group = 0; group < adapter.groups; ++group) {
      ASSIGN_OR_RETURN(const Placement placement,
                       weights_.Place(adapter, group));
      const std::string module_a = InputFactorOf(placement.module);
      const std::string module_b = OutputFactorOf(placement.module);
      const auto rows = static_cast<int64_t>(placement.rows.size());
      if (has_output) {
        table_.DeclareTensor({module_a, {rank_, placement.in}});
        table_.DeclareTensor({module_b, {rows, rank_}});
      }
      AddInput(a, module_a, group * rank_ * in, in, placement);
      if (has_output) {
        AddRows(b, module_b, group * rows, placement.rows, rank_);
      }
      if (has_magnitude) {
        const std::string of_module = MagnitudeOf(placement.module);
        table_.DeclareTensor({of_module, {rows}});
        AddRows(magnitude, of_module, group * rows, placement.rows, 1);
      }
    }
    return absl::OkStatus();
  }

  NameTable Make() && {
    table_.CheckComplete();
    return std::move(table_);
  }

 private:
  void AddInput(const std::string& parameter, const std::string& tensor,
                int64_t begin, int64_t in, const Placement& placement) {
    const int64_t runs = placement.in == in ? 1 : rank_;
    const int64_t size = rank_ / runs * in;
    for (int64_t k = 0; k < runs; ++k) {
      table_.AddPiece(
          {.parameter = parameter,
           .tensor = tensor,
           .parameter_begin = begin + k * in,
           .tensor_begin = k * placement.in + placement.first_column,
           .view = {size}});
    }
  }

  // Of `width` elements each.
  void AddRows(const std::string& parameter, const std::string& tensor,
               int64_t first_row, const std::vector<int64_t>& rows,
               int64_t width) {
    const auto count = static_cast<int64_t>(rows.size());
    for (int64_t i = 0; i < count;) {
      int64_t end = i + 1;
      while (end < count && rows[end] == rows[end - 1] + 1) ++end;
      table_.AddPiece({.parameter = parameter,
                       .tensor = tensor,
                       .parameter_begin = (first_row + i) * width,
                       .tensor_begin = rows[i] * width,
                       .view = {(end - i) * width}});
      i = end;
    }
  }

  Weights weights_;
  int64_t rank_;
  bool decompose_;
  NameTable table_;
};

}  // namespace

std::string InputFactorOf(const std::string& module) {
  return kPrefix + module + kInputFactor + std::string(kWeight);
}

std::string OutputFactorOf(const std::string& module) {
  return kPrefix + module + kOutputFactor + std::string(kWeight);
}

std::string MagnitudeOf(const std::string& module) {
  return kPrefix + module + ".lora_magnitude_vector";
}

std::string ModuleOf(const std::string& factor) {
  std::string module = factor.substr(0, factor.rfind(".lora_"));
  if (module.starts_with(kPrefix)) module.erase(0, sizeof(kPrefix) - 1);
  return module;
}

std::vector<std::vector<std::string>> ModulesOf(
    const NameTable& weights, std::span<const StoredAdapter> adapters) {
  const Weights of_model(weights);
  std::vector<std::vector<std::string>> modules;
  for (const StoredAdapter& adapter : adapters) {
    std::vector<std::string>& of_adapter = modules.emplace_back();
    for (int group = 0; group < adapter.groups; ++group) {
      absl::StatusOr<Placement> placement = of_model.Place(adapter, group);
      if (!placement.ok()) {
        of_adapter.clear();
        break;
      }
      of_adapter.push_back(std::move(placement->module));
    }
  }
  return modules;
}

absl::StatusOr<NameTable> AdapterNames(const NameTable& weights,
                                       std::span<const StoredAdapter> adapters,
                                       int64_t rank, bool decompose) {
  Adapters table(weights, rank, decompose);
  for (const StoredAdapter& adapter : adapters) {
    RETURN_IF_ERROR(table.Add(adapter));
  }
  return std::move(table).Make();
}

}  // namespace trireme
