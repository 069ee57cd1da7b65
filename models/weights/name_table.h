// How a family's parameters are named and laid out in the ecosystem's files:
// one table, by which weights are both read and written.
//
// A parameter's logical tensor (parallel/parameters/parameter_store.h) and a
// tensor of a file share pieces: runs of elements that are neighbours in both,
// in the same order or, within a piece, with dims permuted. That covers
//   renames              one piece, the whole of both
//   q, k, v in one or    a piece for each part of the fused side
//     in three tensors
//   scale, shift for     a piece for each half, at swapped places
//     shift, scale
//   transposes, patch    a piece with an order of dims
//     layouts of
//     convolutions, heads interleaved with q, k, v
// Every element of every tensor is in exactly one piece. What a file holds
// beside the parameters, a class can compute: constants.

#ifndef TRIREME_MODELS_WEIGHTS_NAME_TABLE_H_
#define TRIREME_MODELS_WEIGHTS_NAME_TABLE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/core/shape.h"

namespace trireme {

struct NamedShape {
  std::string name;
  Shape shape;
};

struct WeightPiece {
  std::string parameter;
  std::string tensor;
  // Position of the piece's first element in each, row-major.
  int64_t parameter_begin = 0;
  int64_t tensor_begin = 0;
  // The piece as the parameter lays it out; its elements are neighbours.
  Shape view;
  // The tensor lays out view's dims in this order, outermost first: its dim i
  // is view's dim order[i]. Empty: as the parameter does.
  std::vector<int> order;
};

// A tensor of the files that is no parameter: the class makes it, and this
// model what it needs of it.
struct ConstantTensor {
  NamedShape tensor;
  // Its element i, counted row by row. Threads may call it together.
  std::function<double(int64_t i)> element;
};

// Whose class a table is of, which decides how folders of it look
// (models/weights/weight_folder.h).
enum class WeightLibrary { kDiffusers, kTransformers };

class NameTable {
 public:
  // `class_name` and `config`: of config.json, the class and the JSON object of
  // all of the constructor's arguments. `defaults`: what those are that a file
  // leaves out, likewise (models/weights/model_class.h).
  NameTable(std::string class_name, std::string config, std::string defaults,
            WeightLibrary library = WeightLibrary::kDiffusers)
      : library_(library),
        class_name_(std::move(class_name)),
        config_(std::move(config)),
        defaults_({{class_name_, std::move(defaults)}}) {}

  // The tensor is the parameter, element by element; its shape may be another
  // one of as many elements.
  void Add(const NamedShape& parameter, const NamedShape& tensor);
  // The same with permuted dims: the tensor's dim i is dim order[i] of the
  // parameter, seen as `view`.
  void AddPermuted(const NamedShape& parameter, const Shape& view,
                   std::vector<int> order, const NamedShape& tensor);
  // The parameter is the tensors' elements one after the other (q, k, v in
  // [3, h, h]).
  void AddSplit(const NamedShape& parameter,
                std::span<const NamedShape> tensors);
  // The tensor is the parameters' elements one after the other.
  void AddFused(std::span<const NamedShape> parameters,
                const NamedShape& tensor);
  // The tensor's dim 0 holds the parts that the parameter's dim 0 has, in
  // another order: part i of the tensor is part parts[i] of the parameter
  // ({1, 0}: scale and shift for shift and scale).
  void AddReordered(const NamedShape& parameter, std::span<const int> parts,
                    const NamedShape& tensor);
  // Any other piece; both must have been declared.
  void DeclareParameter(const NamedShape& parameter);
  void DeclareTensor(const NamedShape& tensor);
  void AddPiece(WeightPiece piece);

  void AddConstant(ConstantTensor constant);

  // Another name by which the class goes in some folders, with the defaults of
  // its arguments there.
  void AddClassName(std::string class_name, std::string defaults);

  // CHECKs that pieces lie in what is declared and cover each element of each
  // parameter and tensor once. Whoever made the table calls it at the end.
  void CheckComplete() const;

  WeightLibrary library() const { return library_; }
  const std::string& class_name() const { return class_name_; }
  const std::string& config() const { return config_; }
  // Of the class by that name; null if it is none of the table's.
  const std::string* DefaultsOf(const std::string& class_name) const;
  const std::vector<NamedShape>& parameters() const { return parameters_; }
  const std::vector<NamedShape>& tensors() const { return tensors_; }
  const std::vector<WeightPiece>& pieces() const { return pieces_; }
  // Their tensors are among tensors().
  const std::vector<ConstantTensor>& constants() const { return constants_; }

 private:
  WeightLibrary library_;
  std::string class_name_;
  std::string config_;
  // By all of the class's names.
  std::map<std::string, std::string> defaults_;
  std::vector<NamedShape> parameters_;
  std::vector<NamedShape> tensors_;
  std::vector<WeightPiece> pieces_;
  std::vector<ConstantTensor> constants_;
};

// Where element i of a piece, counted as the parameter lays it out, lies in the
// tensor, counted from the piece's begin there. Runs of neighbours: elements
// [i, i + run) lie at [result, result + run).
struct PiecePosition {
  int64_t tensor_offset = 0;
  int64_t run = 0;
};
PiecePosition PositionInTensor(const WeightPiece& piece, int64_t i);
// The same the other way round: where element i, counted as the tensor lays it
// out, lies in the parameter.
WeightPiece Reversed(const WeightPiece& piece);

}  // namespace trireme

#endif  // TRIREME_MODELS_WEIGHTS_NAME_TABLE_H_
