#include "models/weights/name_table.h"

#include <algorithm>
#include <map>
#include <utility>

#include "runtime/core/log.h"

namespace trireme {
namespace {

// A tensor's dims, from the view of a piece.
Shape TensorView(const WeightPiece& piece) {
  if (piece.order.empty()) return piece.view;
  Shape shape;
  for (const int dim : piece.order) shape.push_back(piece.view.dim(dim));
  return shape;
}

struct Span {
  int64_t begin = 0;
  int64_t end = 0;
};

// CHECKs that the spans of each name are all of its elements, none twice.
void CheckCovered(const std::vector<NamedShape>& declared,
                  std::map<std::string, std::vector<Span>> spans) {
  for (const NamedShape& entry : declared) {
    std::vector<Span>& of_entry = spans[entry.name];
    std::sort(of_entry.begin(), of_entry.end(),
              [](const Span& a, const Span& b) { return a.begin < b.begin; });
    int64_t covered = 0;
    for (const Span& span : of_entry) {
      CHECK_EQ(span.begin, covered) << entry.name;
      covered = span.end;
    }
    CHECK_EQ(covered, entry.shape.num_elements()) << entry.name;
    spans.erase(entry.name);
  }
  CHECK(spans.empty()) << spans.begin()->first << " was not declared";
}

}  // namespace

void NameTable::Add(const NamedShape& parameter, const NamedShape& tensor) {
  AddSplit(parameter, std::span<const NamedShape>(&tensor, 1));
}

void NameTable::AddPermuted(const NamedShape& parameter, const Shape& view,
                            std::vector<int> order, const NamedShape& tensor) {
  CHECK_EQ(view.num_elements(), parameter.shape.num_elements());
  DeclareParameter(parameter);
  DeclareTensor(tensor);
  AddPiece({.parameter = parameter.name,
            .tensor = tensor.name,
            .view = view,
            .order = std::move(order)});
}

void NameTable::AddSplit(const NamedShape& parameter,
                         std::span<const NamedShape> tensors) {
  DeclareParameter(parameter);
  int64_t begin = 0;
  for (const NamedShape& tensor : tensors) {
    DeclareTensor(tensor);
    AddPiece({.parameter = parameter.name,
              .tensor = tensor.name,
              .parameter_begin = begin,
              .view = {tensor.shape.num_elements()}});
    begin += tensor.shape.num_elements();
  }
}

void NameTable::AddFused(std::span<const NamedShape> parameters,
                         const NamedShape& tensor) {
  DeclareTensor(tensor);
  int64_t begin = 0;
  for (const NamedShape& parameter : parameters) {
    DeclareParameter(parameter);
    AddPiece({.parameter = parameter.name,
              .tensor = tensor.name,
              .tensor_begin = begin,
              .view = {parameter.shape.num_elements()}});
    begin += parameter.shape.num_elements();
  }
}

void NameTable::AddReordered(const NamedShape& parameter,
                             std::span<const int> parts,
                             const NamedShape& tensor) {
  DeclareParameter(parameter);
  DeclareTensor(tensor);
  const auto count = static_cast<int64_t>(parts.size());
  const int64_t size = parameter.shape.num_elements() / count;
  for (int64_t i = 0; i < count; ++i) {
    AddPiece({.parameter = parameter.name,
              .tensor = tensor.name,
              .parameter_begin = parts[i] * size,
              .tensor_begin = i * size,
              .view = {size}});
  }
}

void NameTable::DeclareParameter(const NamedShape& parameter) {
  parameters_.push_back(parameter);
}

void NameTable::DeclareTensor(const NamedShape& tensor) {
  tensors_.push_back(tensor);
}

void NameTable::AddPiece(WeightPiece piece) {
  CHECK(piece.order.empty() ||
        static_cast<int>(piece.order.size()) == piece.view.rank())
      << piece.parameter;
  pieces_.push_back(std::move(piece));
}

void NameTable::AddClassName(std::string class_name, std::string defaults) {
  defaults_.emplace(std::move(class_name), std::move(defaults));
}

const std::string* NameTable::DefaultsOf(const std::string& class_name) const {
  const auto found = defaults_.find(class_name);
  return found == defaults_.end() ? nullptr : &found->second;
}

void NameTable::AddConstant(ConstantTensor constant) {
  DeclareTensor(constant.tensor);
  constants_.push_back(std::move(constant));
}

void NameTable::CheckComplete() const {
  std::map<std::string, std::vector<Span>> of_parameters;
  std::map<std::string, std::vector<Span>> of_tensors;
  for (const WeightPiece& piece : pieces_) {
    const int64_t size = piece.view.num_elements();
    of_parameters[piece.parameter].push_back(
        {piece.parameter_begin, piece.parameter_begin + size});
    of_tensors[piece.tensor].push_back(
        {piece.tensor_begin, piece.tensor_begin + size});
  }
  for (const ConstantTensor& constant : constants_) {
    of_tensors[constant.tensor.name].push_back(
        {0, constant.tensor.shape.num_elements()});
  }
  CheckCovered(parameters_, std::move(of_parameters));
  CheckCovered(tensors_, std::move(of_tensors));
}

PiecePosition PositionInTensor(const WeightPiece& piece, int64_t i) {
  if (piece.order.empty()) return {i, piece.view.num_elements() - i};
  const Shape tensor = TensorView(piece);
  PiecePosition position{.run = 1};
  int64_t rest = i;
  for (int dim = piece.view.rank() - 1; dim >= 0; --dim) {
    const int64_t extent = piece.view.dim(dim);
    const int64_t index = rest % extent;
    rest /= extent;
    const auto at = static_cast<int>(
        std::find(piece.order.begin(), piece.order.end(), dim) -
        piece.order.begin());
    position.tensor_offset += index * tensor.elements_after(at);
    if (dim == piece.view.rank() - 1 && at == dim) {
      position.run = extent - index;
    }
  }
  return position;
}

WeightPiece Reversed(const WeightPiece& piece) {
  WeightPiece reversed{.parameter = piece.tensor,
                       .tensor = piece.parameter,
                       .parameter_begin = piece.tensor_begin,
                       .tensor_begin = piece.parameter_begin,
                       .view = TensorView(piece)};
  reversed.order.resize(piece.order.size());
  for (size_t i = 0; i < piece.order.size(); ++i) {
    reversed.order[piece.order[i]] = static_cast<int>(i);
  }
  return reversed;
}

}  // namespace trireme
