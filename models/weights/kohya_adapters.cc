#include <algorithm>
#include <cmath>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_replace.h"
#include "models/weights/adapter_names.h"
#include "models/weights/module_adapters.h"
#include "models/weights/original_modules.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr char kPrefix[] = "lora_unet_";
constexpr char kDown[] = ".lora_down.weight";
constexpr char kUp[] = ".lora_up.weight";
constexpr char kAlphaName[] = ".alpha";
constexpr char kScaleName[] = ".dora_scale";
constexpr int64_t kMostRank = 1 << 16;
// A fused layer's alpha is the sum of its modules', which a dtype may round
// (BF16 to eight bits).
constexpr double kAlphaRounding = 0x1p-8;

std::string KeyOf(const OriginalModule& original) {
  return kPrefix + absl::StrReplaceAll(original.name, {{".", "_"}});
}

// The layers of the original code, and the output channels of modules.
class Originals {
 public:
  explicit Originals(const NameTable& weights) {
    int blocks = 0;
    for (const NamedShape& tensor : weights.tensors()) {
      constexpr std::string_view kWeight = ".weight";
      if (!tensor.name.ends_with(kWeight)) continue;
      rows_[tensor.name.substr(0, tensor.name.size() - kWeight.size())] =
          tensor.shape.dim(0);
      const size_t number = tensor.name.find("blocks.");
      int block = 0;
      if (number != std::string::npos &&
          absl::SimpleAtoi(
              tensor.name.substr(
                  number + 7, tensor.name.find('.', number + 7) - number - 7),
              &block)) {
        blocks = std::max(blocks, block + 1);
      }
    }
    for (OriginalModule& original :
         OriginalModulesOf(weights.class_name(), blocks)) {
      // A table has names of both kinds of blocks for each number.
      if (std::all_of(original.modules.begin(), original.modules.end(),
                      [&](const std::string& module) {
                        return rows_.contains(module);
                      })) {
        all_.push_back(std::move(original));
      }
    }
  }

  const std::vector<OriginalModule>& all() const { return all_; }
  int64_t RowsOf(const std::string& module) const { return rows_.at(module); }
  int64_t RowsOf(const OriginalModule& original) const {
    int64_t rows = 0;
    for (const std::string& module : original.modules) rows += RowsOf(module);
    return rows;
  }

 private:
  std::vector<OriginalModule> all_;
  std::map<std::string, int64_t> rows_;
};

// A matrix of an adapter, whole in memory.
struct Matrix {
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<double> values;

  Matrix() = default;
  Matrix(int64_t rows, int64_t columns)
      : rows(rows), columns(columns), values(rows * columns) {}
  double& at(int64_t row, int64_t column) {
    return values[row * columns + column];
  }
  double at(int64_t row, int64_t column) const {
    return values[row * columns + column];
  }
  // Rows [row, row + count), columns [column, column + width).
  Matrix Part(int64_t row, int64_t count, int64_t column, int64_t width) const {
    Matrix part(count, width);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        part.at(i, j) = at(row + i, column + j);
      }
    }
    return part;
  }
};

class HeldTensors final : public TensorSource {
 public:
  explicit HeldTensors(std::string origin) : origin_(std::move(origin)) {}
  void Add(const std::string& name, const Shape& shape,
           std::vector<double> values) {
    tensors_[name] = {shape, std::move(values)};
  }

  absl::Status Check(const std::string& name,
                     const Shape& shape) const override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
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
    std::copy_n(tensors_.at(name).values.begin() + begin, values.size(),
                values.begin());
  }

 private:
  struct Held {
    Shape shape;
    std::vector<double> values;
  };

  std::string origin_;
  std::map<std::string, Held> tensors_;
};

absl::StatusOr<Matrix> ReadMatrix(const SafetensorsFile& file,
                                  const std::string& name) {
  ASSIGN_OR_RETURN(const auto bytes, file.Data(name));
  const SafetensorsFile::Entry& entry = file.tensors().at(name);
  if (!IsFloating(entry.dtype) || entry.shape.rank() != 2) {
    return FailedPrecondition("{}: tensor '{}': found {} {}, expected a matrix",
                              file.path(), name, DTypeName(entry.dtype),
                              entry.shape.ToString());
  }
  Matrix matrix(entry.shape.dim(0), entry.shape.dim(1));
  ReadElements(entry.dtype, bytes, 0, matrix.values);
  return matrix;
}

absl::StatusOr<double> ReadAlpha(const SafetensorsFile& file,
                                 const std::string& name, int64_t rank) {
  if (!file.tensors().contains(name)) return static_cast<double>(rank);
  const SafetensorsFile::Entry& entry = file.tensors().at(name);
  double alpha = 0;
  if (IsFloating(entry.dtype) && entry.shape.num_elements() == 1) {
    ReadElements(entry.dtype, *file.Data(name), 0, std::span(&alpha, 1));
  }
  if (alpha > 0) return alpha;
  return FailedPrecondition(
      "{}: tensor '{}': found {} {}, expected one number above 0", file.path(),
      name, DTypeName(entry.dtype), entry.shape.ToString());
}

// Of the rows of a layer; empty: the file has none of it.
absl::StatusOr<std::vector<double>> ReadMagnitudes(const SafetensorsFile& file,
                                                   const std::string& name,
                                                   int64_t rows) {
  std::vector<double> values;
  if (!file.tensors().contains(name)) return values;
  const SafetensorsFile::Entry& entry = file.tensors().at(name);
  if (!IsFloating(entry.dtype) ||
      (entry.shape != Shape{rows, 1} && entry.shape != Shape{rows})) {
    return FailedPrecondition(
        "{}: tensor '{}': found {} {}, expected numbers of shape [{}, 1], one "
        "magnitude for each row",
        file.path(), name, DTypeName(entry.dtype), entry.shape.ToString(),
        rows);
  }
  ASSIGN_OR_RETURN(const auto bytes, file.Data(name));
  values.resize(rows);
  ReadElements(entry.dtype, bytes, 0, values);
  return values;
}

// Whether each module has ranks of its own, and zeros in those of others.
bool IsDiagonal(const Matrix& up, const Originals& originals,
                const OriginalModule& original) {
  const auto count = static_cast<int64_t>(original.modules.size());
  if (up.columns % count != 0) return false;
  const int64_t rank = up.columns / count;
  int64_t row = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t end = row + originals.RowsOf(original.modules[i]);
    for (; row < end; ++row) {
      for (int64_t k = 0; k < up.columns; ++k) {
        if (k / rank != i && up.at(row, k) != 0) return false;
      }
    }
  }
  return true;
}

// One layer's factors to those of its modules.
class KohyaReader {
 public:
  KohyaReader(const SafetensorsFile& file, const NameTable& weights)
      : file_(file),
        originals_(weights),
        class_name_(weights.class_name()),
        tensors_(std::make_shared<HeldTensors>(file.path())) {}

  absl::StatusOr<ModuleAdapters> Read() && {
    std::set<std::string> known;
    for (const OriginalModule& original : originals_.all()) {
      const std::string key = KeyOf(original);
      for (const char* part : {kDown, kUp, kAlphaName, kScaleName}) {
        known.insert(key + part);
      }
      if (file_.tensors().contains(key + kDown)) {
        RETURN_IF_ERROR(ReadLayer(original, key));
      }
    }
    for (const auto& [name, entry] : file_.tensors()) {
      if (known.contains(name)) continue;
      return FailedPrecondition(
          "{}: found tensor '{}', which no linear layer of {}'s original has",
          file_.path(), name, class_name_);
    }
    adapters_.tensors = std::move(tensors_);
    return std::move(adapters_);
  }

 private:
  absl::Status ReadLayer(const OriginalModule& original,
                         const std::string& key) {
    ASSIGN_OR_RETURN(const Matrix down, ReadMatrix(file_, key + kDown));
    ASSIGN_OR_RETURN(const Matrix up, ReadMatrix(file_, key + kUp));
    if (down.rows < 1 || down.rows > kMostRank || up.columns != down.rows ||
        up.rows != originals_.RowsOf(original)) {
      return FailedPrecondition(
          "{}: tensor '{}': found shape [{}, {}], expected [{}, {}]",
          file_.path(), key + kUp, up.rows, up.columns,
          originals_.RowsOf(original), down.rows);
    }
    ASSIGN_OR_RETURN(double alpha,
                     ReadAlpha(file_, key + kAlphaName, down.rows));
    const auto count = static_cast<int64_t>(original.modules.size());
    const bool diagonal = count > 1 && IsDiagonal(up, originals_, original);
    const int64_t rank = diagonal ? down.rows / count : down.rows;
    if (diagonal) alpha /= static_cast<double>(count);
    if (adapters_.rank == 0) {
      adapters_.rank = rank;
      adapters_.alpha = alpha;
    }
    if (rank != adapters_.rank ||
        std::abs(alpha - adapters_.alpha) > kAlphaRounding * adapters_.alpha) {
      return FailedPrecondition(
          "{}: tensor '{}': found rank {} and alpha {}, expected those of the "
          "layers before, {} and {}",
          file_.path(), key + kDown, rank, alpha, adapters_.rank,
          adapters_.alpha);
    }
    ASSIGN_OR_RETURN(const std::vector<double> magnitudes,
                     ReadMagnitudes(file_, key + kScaleName, up.rows));
    // Of modules without, whoever knows which there are says so.
    adapters_.decomposed = adapters_.decomposed || !magnitudes.empty();
    int64_t row = 0;
    for (int64_t i = 0; i < count; ++i) {
      const std::string& module = original.modules[i];
      const int64_t rows = originals_.RowsOf(module);
      const int64_t first = diagonal ? i * rank : 0;
      Add(InputFactorOf(module), down.Part(first, rank, 0, down.columns));
      Add(OutputFactorOf(module), up.Part(row, rows, first, rank));
      if (!magnitudes.empty()) {
        Add(MagnitudeOf(module), {rows},
            {magnitudes.begin() + row, magnitudes.begin() + row + rows});
      }
      row += rows;
    }
    return absl::OkStatus();
  }

  void Add(const std::string& name, Matrix matrix) {
    Add(name, {matrix.rows, matrix.columns}, std::move(matrix.values));
  }
  void Add(const std::string& name, const Shape& shape,
           std::vector<double> values) {
    adapters_.shapes[name] = shape;
    tensors_->Add(name, shape, std::move(values));
  }

  const SafetensorsFile& file_;
  Originals originals_;
  std::string class_name_;
  std::shared_ptr<HeldTensors> tensors_;
  ModuleAdapters adapters_;
};

Matrix WholeOf(const ModuleAdapters& adapters, const std::string& name) {
  const Shape& shape = adapters.shapes.at(name);
  Matrix matrix(shape.dim(0), shape.dim(1));
  adapters.tensors->Read(name, 0, matrix.values);
  return matrix;
}

// The modules' factors as one layer's.
struct FusedFactors {
  Matrix down;
  Matrix up;
  double alpha = 0;
  std::vector<double> magnitudes;  // empty: none
};

FusedFactors Fuse(const ModuleAdapters& adapters, const Originals& originals,
                  const OriginalModule& original) {
  std::vector<Matrix> downs;
  for (const std::string& module : original.modules) {
    downs.push_back(WholeOf(adapters, InputFactorOf(module)));
  }
  const bool shared = std::all_of(
      downs.begin(), downs.end(),
      [&](const Matrix& down) { return down.values == downs.front().values; });
  const auto count = shared ? 1 : static_cast<int64_t>(downs.size());
  const int64_t rank = adapters.rank;
  FusedFactors fused;
  fused.alpha = adapters.alpha * static_cast<double>(count);
  fused.down = Matrix(count * rank, downs.front().columns);
  for (int64_t i = 0; i < count; ++i) {
    std::copy(downs[i].values.begin(), downs[i].values.end(),
              fused.down.values.begin() + i * rank * fused.down.columns);
  }
  fused.up = Matrix(originals.RowsOf(original), count * rank);
  int64_t first = 0;
  for (size_t i = 0; i < original.modules.size(); ++i) {
    const Matrix up = WholeOf(adapters, OutputFactorOf(original.modules[i]));
    const int64_t column = shared ? 0 : static_cast<int64_t>(i) * rank;
    for (int64_t row = 0; row < up.rows; ++row) {
      for (int64_t k = 0; k < rank; ++k) {
        fused.up.at(first + row, column + k) = up.at(row, k);
      }
    }
    if (adapters.decomposed) {
      fused.magnitudes.resize(first + up.rows);
      adapters.tensors->Read(
          MagnitudeOf(original.modules[i]), 0,
          std::span(fused.magnitudes).subspan(first, up.rows));
    }
    first += up.rows;
  }
  return fused;
}

}  // namespace

bool HasKohyaNames(const SafetensorsFile& file) {
  return std::any_of(
      file.tensors().begin(), file.tensors().end(),
      [](const auto& tensor) { return tensor.first.starts_with(kPrefix); });
}

absl::StatusOr<ModuleAdapters> ReadKohyaAdapters(const SafetensorsFile& file,
                                                 const NameTable& weights) {
  return KohyaReader(file, weights).Read();
}

absl::StatusOr<int64_t> WriteKohyaAdapters(const std::string& path,
                                           const NameTable& weights,
                                           const ModuleAdapters& adapters,
                                           DType dtype) {
  const Originals originals(weights);
  std::set<std::string> left;
  for (const auto& [name, shape] : adapters.shapes) left.insert(ModuleOf(name));
  std::vector<SafetensorsEntry> entries;
  std::map<std::string, OriginalModule> by_key;
  for (const OriginalModule& original : originals.all()) {
    const auto has = [&](const std::string& module) {
      return adapters.shapes.contains(InputFactorOf(module));
    };
    const auto& modules = original.modules;
    if (std::none_of(modules.begin(), modules.end(), has)) continue;
    const auto missing = std::find_if_not(modules.begin(), modules.end(), has);
    if (missing != modules.end()) {
      return FailedPrecondition(
          "{}: found no adapter of {}, expected one: {} is it and others that "
          "have adapters",
          path, *missing, original.name);
    }
    for (const std::string& module : modules) left.erase(module);
    const std::string key = KeyOf(original);
    const FusedFactors fused = Fuse(adapters, originals, original);
    entries.push_back(
        {key + kDown, dtype, {fused.down.rows, fused.down.columns}});
    entries.push_back({key + kUp, dtype, {fused.up.rows, fused.up.columns}});
    entries.push_back({key + kAlphaName, DType::kFloat32, {}});
    if (adapters.decomposed) {
      entries.push_back({key + kScaleName, dtype, {fused.up.rows, 1}});
    }
    by_key[key] = original;
  }
  if (!left.empty()) {
    return FailedPrecondition(
        "{}: found an adapter of {}, expected none: kohya's scripts have no "
        "name for it",
        path, *left.begin());
  }
  ASSIGN_OR_RETURN(const auto writer, SafetensorsWriter::Create(
                                          path, entries, {{"format", "pt"}}));
  NonFiniteTensors non_finite;
  for (const SafetensorsEntry& entry : writer->entries()) {
    const std::string key = entry.name.substr(0, entry.name.find('.'));
    const FusedFactors fused = Fuse(adapters, originals, by_key.at(key));
    const std::vector<double> alpha = {fused.alpha};
    const std::vector<double>& values =
        entry.name.ends_with(kDown)        ? fused.down.values
        : entry.name.ends_with(kUp)        ? fused.up.values
        : entry.name.ends_with(kScaleName) ? fused.magnitudes
                                           : alpha;
    non_finite.Look(entry, values);
    RETURN_IF_ERROR(AppendNumbers(*writer, entry, values));
  }
  non_finite.Warn(path);
  RETURN_IF_ERROR(writer->Commit().status());
  return static_cast<int64_t>(entries.size());
}

}  // namespace trireme
