#include "trainer/forward/class_inputs.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "fmt/format.h"
#include "models/weights/tensor_source.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/nearest_name.h"
#include "runtime/core/status.h"
#include "trainer/sampling/evaluation.h"

namespace trireme {
namespace {

constexpr char kGuidance[] = "guidance";
constexpr char kLabels[] = "class_labels";
constexpr char kImageIds[] = "img_ids";
constexpr char kTextIds[] = "txt_ids";

template <typename T>
void ReadWhole(std::span<const std::byte> bytes, std::vector<double>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    T element;
    std::memcpy(&element, bytes.data() + i * sizeof(T), sizeof(T));
    values[i] = static_cast<double>(element);
  }
}

// The elements of `order`[i] at i of a tensor whose dims are permuted.
std::vector<double> Permuted(const HostField& field, const Shape& view,
                             std::span<const int> order) {
  const size_t rank = view.rank();
  std::vector<int64_t> strides(rank, 1);
  for (size_t i = rank - 1; i > 0; --i) {
    strides[i - 1] = strides[i] * view.dim(static_cast<int>(i));
  }
  std::vector<double> result(field.values.size());
  std::vector<int64_t> index(rank, 0);
  for (double& value : result) {
    int64_t at = 0;
    for (size_t i = 0; i < rank; ++i) at += index[i] * strides[order[i]];
    value = field.values[at];
    for (size_t i = rank; i-- > 0;) {
      if (++index[i] < view.dim(order[i])) break;
      index[i] = 0;
    }
  }
  return result;
}

class InputFile {
 public:
  static absl::StatusOr<InputFile> Open(const std::string& path) {
    ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(path));
    return InputFile(std::move(file));
  }

  bool Has(const std::string& name) const {
    return file_->tensors().contains(name);
  }
  const std::string& path() const { return file_->path(); }

  // Marks the tensor as known; one of the wrong rank is an error.
  absl::StatusOr<HostField> Read(const std::string& name, int rank) {
    known_.insert(name);
    ASSIGN_OR_RETURN(const std::span<const std::byte> bytes, file_->Data(name));
    const SafetensorsFile::Entry& entry = file_->tensors().at(name);
    if (static_cast<int>(entry.shape.rank()) != rank) {
      return InvalidArgument("{}: {}: found shape {}, expected {} dimensions",
                             path(), name, entry.shape.ToString(), rank);
    }
    HostField field = {.shape = entry.shape};
    field.values.resize(entry.shape.num_elements());
    if (entry.dtype == DType::kInt64) {
      ReadWhole<int64_t>(bytes, field.values);
    } else if (entry.dtype == DType::kInt32) {
      ReadWhole<int32_t>(bytes, field.values);
    } else if (IsFloating(entry.dtype)) {
      ReadElements(entry.dtype, bytes, 0, field.values);
    } else {
      return InvalidArgument("{}: {}: found {}, expected numbers", path(), name,
                             DTypeName(entry.dtype));
    }
    return field;
  }

  absl::StatusOr<HostField> ReadShaped(const std::string& name,
                                       const Shape& expected) {
    ASSIGN_OR_RETURN(HostField field,
                     Read(name, static_cast<int>(expected.rank())));
    if (field.shape == expected) return field;
    return InvalidArgument("{}: {}: found shape {}, expected {}", path(), name,
                           field.shape.ToString(), expected.ToString());
  }

  void Ignore(const std::string& name) { known_.insert(name); }

  absl::Status CheckAllKnown() const {
    for (const auto& [name, entry] : file_->tensors()) {
      if (known_.contains(name)) continue;
      const std::string nearest =
          NearestName(name, {known_.begin(), known_.end()});
      return InvalidArgument(
          "{}: found tensor '{}', which the model does not read{}", path(),
          name,
          nearest.empty() ? "" : fmt::format(" (nearest: '{}')", nearest));
    }
    return absl::OkStatus();
  }

 private:
  explicit InputFile(std::unique_ptr<SafetensorsFile> file)
      : file_(std::move(file)) {}

  std::unique_ptr<SafetensorsFile> file_;
  std::set<std::string> known_;
};

struct Grid {
  int64_t rows = 0;
  int64_t columns = 0;
};

// Of packed patches, whose ids must be those of a whole picture, row by row.
absl::StatusOr<Grid> GridOf(InputFile& file, int64_t tokens) {
  ASSIGN_OR_RETURN(const HostField ids,
                   file.ReadShaped(kImageIds, {tokens, 3}));
  Grid grid;
  if (tokens > 0) {
    // The last token's, of numbers that a conversion cannot overflow.
    const double row = ids.values[3 * tokens - 2];
    const double column = ids.values[3 * tokens - 1];
    if (row >= 0 && row < static_cast<double>(tokens) && column >= 0 &&
        column < static_cast<double>(tokens)) {
      grid = {static_cast<int64_t>(row) + 1, static_cast<int64_t>(column) + 1};
    }
  }
  bool whole = grid.rows * grid.columns == tokens && tokens > 0;
  for (int64_t i = 0; whole && i < tokens; ++i) {
    whole = ids.values[3 * i] == 0 &&
            ids.values[3 * i + 1] == static_cast<double>(i / grid.columns) &&
            ids.values[3 * i + 2] == static_cast<double>(i % grid.columns);
  }
  if (whole) return grid;
  return InvalidArgument(
      "{}: {}: found others, expected (0, row, column) of the {} patches of a "
      "picture, row by row",
      file.path(), kImageIds, tokens);
}

// Pictures of packed patches.
HostField Unpacked(HostField packed, const Grid& grid, int64_t patch) {
  const int64_t n = packed.shape.dim(0);
  const int64_t channels = packed.shape.dim(2) / (patch * patch);
  constexpr int kOrder[] = {0, 3, 1, 4, 2, 5};
  packed.values = Permuted(
      packed, {n, grid.rows, grid.columns, channels, patch, patch}, kOrder);
  packed.shape = {n, channels, grid.rows * patch, grid.columns * patch};
  return packed;
}

absl::StatusOr<HostField> ReadPictures(InputFile& file, const std::string& name,
                                       int64_t channels, int64_t patch,
                                       std::optional<Grid>& grid) {
  if (patch == 0) {
    ASSIGN_OR_RETURN(HostField pictures, file.Read(name, 4));
    if (pictures.shape.dim(1) == channels) return pictures;
    return InvalidArgument("{}: {}: found {} channels, expected {}",
                           file.path(), name, pictures.shape.dim(1), channels);
  }
  ASSIGN_OR_RETURN(HostField packed, file.Read(name, 3));
  if (packed.shape.dim(2) != channels * patch * patch) {
    return InvalidArgument("{}: {}: found {} channels, expected {}",
                           file.path(), name, packed.shape.dim(2),
                           channels * patch * patch);
  }
  if (!grid.has_value()) {
    ASSIGN_OR_RETURN(grid, GridOf(file, packed.shape.dim(1)));
  }
  if (packed.shape.dim(1) != grid->rows * grid->columns) {
    return InvalidArgument("{}: {}: found {} tokens, expected {}", file.path(),
                           name, packed.shape.dim(1),
                           grid->rows * grid->columns);
  }
  return Unpacked(std::move(packed), *grid, patch);
}

absl::Status CheckTextIds(InputFile& file, int64_t text_tokens) {
  ASSIGN_OR_RETURN(const HostField ids,
                   file.ReadShaped(kTextIds, {text_tokens, 3}));
  if (std::all_of(ids.values.begin(), ids.values.end(),
                  [](double id) { return id == 0; })) {
    return absl::OkStatus();
  }
  return InvalidArgument("{}: {}: found others, expected zeros", file.path(),
                         kTextIds);
}

absl::StatusOr<HostField> ReadLabels(InputFile& file, int64_t n,
                                     int64_t classes) {
  ASSIGN_OR_RETURN(HostField labels, file.ReadShaped(kLabels, {n}));
  for (const double label : labels.values) {
    // The last is that of no class.
    if (label >= 0 && label <= static_cast<double>(classes) &&
        label == std::floor(label)) {
      continue;
    }
    return InvalidArgument("{}: {}: found {}, expected 0 to {}", file.path(),
                           kLabels, label, classes);
  }
  return labels;
}

// The model's layer of the states [layers, n, tokens, width].
absl::StatusOr<HostField> ReadTextLayer(InputFile& file,
                                        const std::string& name,
                                        const FieldSpec& spec, int64_t n) {
  ASSIGN_OR_RETURN(const HostField given, file.Read(name, 4));
  const Shape& shape = given.shape;
  HostField field = {.shape = spec.ShapeOf(n)};
  if (shape.dim(0) < spec.num_layers ||
      Shape({shape.dim(1), shape.dim(2), shape.dim(3)}) != field.shape) {
    return InvalidArgument("{}: {}: found shape {}, expected {} of {}",
                           file.path(), name, shape.ToString(), spec.num_layers,
                           field.shape.ToString());
  }
  const int64_t elements = field.shape.num_elements();
  const auto begin = given.values.begin() + spec.layer * elements;
  field.values.assign(begin, begin + elements);
  return field;
}

// What the model reads beside pictures and times.
absl::Status ReadConditions(InputFile& file, ClassInputs& inputs) {
  const int64_t n = inputs.samples;
  const ClassCall call = inputs.family->Call();
  for (const FieldSpec& spec : AllFields(*inputs.family)) {
    // What the model says of a sample is none of its conditions.
    if (spec.name == kLabelField && inputs.family->classifies()) continue;
    HostField& field = inputs.fields[spec.name];
    if (spec.name == kTextCountField) {
      // The classes attend to all of the text that they are given.
      field.shape = {n};
      field.values.assign(n, spec.typical);
    } else if (spec.name == kTextField) {
      ASSIGN_OR_RETURN(
          field, file.ReadShaped(std::string(call.text), spec.ShapeOf(n)));
    } else if (spec.name == kPooledTextField) {
      ASSIGN_OR_RETURN(
          field, file.ReadShaped(std::string(call.pooled), spec.ShapeOf(n)));
    } else if (spec.num_layers > 0) {
      ASSIGN_OR_RETURN(
          field, ReadTextLayer(file, std::string(call.text_layers), spec, n));
    } else if (spec.name == kLabelField) {
      ASSIGN_OR_RETURN(field,
                       ReadLabels(file, n, inputs.family->num_classes()));
    }
  }
  return absl::OkStatus();
}

void Negate(HostField& field) {
  for (double& value : field.values) value = -value;
}

bool IsWhole(const std::string& field) {
  return field == kLabelField || field == kTextCountField;
}

// As the family's prediction.
absl::StatusOr<HostField> ReadCotangent(InputFile& file,
                                        const ClassInputs& inputs,
                                        std::optional<Grid>& grid) {
  const FieldSpec output = inputs.family->predictions();
  const ClassCall call = inputs.family->Call();
  const Shape expected = output.ShapeOf(inputs.samples);
  if (inputs.family->classifies()) {
    return file.ReadShaped(kCotangentField, expected);
  }
  ASSIGN_OR_RETURN(HostField given,
                   ReadPictures(file, kCotangentField, output.shape.dim(0),
                                call.packed_patch, grid));
  if (given.shape != expected) {
    return InvalidArgument("{}: {}: found shape {}, expected {}", file.path(),
                           kCotangentField, given.shape.ToString(),
                           expected.ToString());
  }
  if (call.predicts_data_minus_noise) Negate(given);
  return given;
}

}  // namespace

absl::StatusOr<ClassInputs> ReadClassInputs(const std::string& path,
                                            const ModelFamily& family,
                                            bool cotangent) {
  ASSIGN_OR_RETURN(InputFile file, InputFile::Open(path));
  const ClassCall call = family.Call();
  const int64_t channels = family.samples().shape.dim(0);
  const std::string samples_name(call.samples);
  std::optional<Grid> grid;
  ASSIGN_OR_RETURN(
      HostField pictures,
      ReadPictures(file, samples_name, channels, call.packed_patch, grid));
  ClassInputs inputs;
  inputs.samples = pictures.shape.dim(0);
  if (inputs.samples < 1) {
    return InvalidArgument("{}: {}: found no sample, expected one or more",
                           path, samples_name);
  }
  InputSizes sizes = {.height = pictures.shape.dim(2),
                      .width = pictures.shape.dim(3)};
  const std::string text_name(call.text);
  if (file.Has(text_name)) {
    ASSIGN_OR_RETURN(const HostField text, file.Read(text_name, 3));
    sizes.text_tokens = text.shape.dim(1);
  }
  const std::string layers_name(call.text_layers);
  if (!layers_name.empty() && file.Has(layers_name)) {
    ASSIGN_OR_RETURN(const HostField layers, file.Read(layers_name, 4));
    sizes.text_layer_tokens = layers.shape.dim(2);
  }
  const auto sized = family.ForInputs(sizes);
  RETURN_IF_ERROR(WithContext(sized.status(), path));
  inputs.family = *sized;
  RETURN_IF_ERROR(ReadConditions(file, inputs));
  inputs.fields[family.samples().name] = std::move(pictures);
  if (!call.timestep.empty()) {
    ASSIGN_OR_RETURN(
        HostField times,
        file.ReadShaped(std::string(call.timestep), {inputs.samples}));
    for (double& time : times.values) time /= call.timestep_scale;
    inputs.fields[kTimeField] = std::move(times);
  }
  if (call.guidance) {
    ASSIGN_OR_RETURN(inputs.fields[kGuidanceField],
                     file.ReadShaped(kGuidance, {inputs.samples}));
  }
  if (call.packed_patch > 0) {
    RETURN_IF_ERROR(CheckTextIds(file, sizes.text_tokens));
  }
  // One file may serve with and without gradients.
  file.Ignore(kCotangentField);
  if (cotangent) {
    ASSIGN_OR_RETURN(inputs.fields[kCotangentField],
                     ReadCotangent(file, inputs, grid));
  }
  RETURN_IF_ERROR(file.CheckAllKnown());
  return inputs;
}

Batch BatchOf(const ClassInputs& inputs, Device& device, int64_t begin,
              int64_t end) {
  Batch batch;
  batch.step = 1;
  for (int64_t i = begin; i < end; ++i) {
    batch.samples.push_back(static_cast<uint64_t>(i));
  }
  for (const auto& [name, field] : inputs.fields) {
    const int64_t each = field.shape.num_elements() / inputs.samples;
    const std::span<const double> values(field.values.data() + begin * each,
                                         (end - begin) * each);
    std::vector<int64_t> dims(field.shape.dims().begin(),
                              field.shape.dims().end());
    dims[0] = end - begin;
    Tensor& tensor = batch.fields[name].values;
    if (IsWhole(name)) {
      tensor = Tensor::FromValues<int32_t>(
          device, Shape(dims),
          std::vector<int32_t>(values.begin(), values.end()));
    } else {
      tensor = Tensor::FromValues<double>(device, Shape(dims), values);
    }
  }
  return batch;
}

std::string ClassNameOf(const std::string& field, const ClassCall& call) {
  if (field == kPixelsField) return std::string(call.samples);
  if (field == kTextField) return std::string(call.text);
  if (field == kPooledTextField) return std::string(call.pooled);
  return "";
}

HostField OutputOf(HostField prediction, const ClassCall& call) {
  if (call.predicts_data_minus_noise) Negate(prediction);
  return AsClassHas(prediction, call);
}

HostField AsClassHas(const HostField& pictures, const ClassCall& call) {
  if (call.packed_patch == 0) return pictures;
  const int64_t patch = call.packed_patch;
  const int64_t n = pictures.shape.dim(0);
  const int64_t channels = pictures.shape.dim(1);
  const int64_t rows = pictures.shape.dim(2) / patch;
  const int64_t columns = pictures.shape.dim(3) / patch;
  constexpr int kOrder[] = {0, 2, 4, 1, 3, 5};
  return {.shape = {n, rows * columns, channels * patch * patch},
          .values = Permuted(
              pictures, {n, channels, rows, patch, columns, patch}, kOrder)};
}

}  // namespace trireme
