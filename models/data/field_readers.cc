#include "models/data/field_readers.h"

#include <algorithm>
#include <array>

#include "models/data/byte_text.h"
#include "models/data/surface_draws.h"
#include "models/image/resize.h"
#include "models/image/transform.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Samples that CheckFields reads at most.
constexpr int64_t kMostChecked = 64;

// What a sample's autoencoder draws of it, or would on average, from its first
// element of `of_sample` on.
void ReadLatents(const Sample& sample, int64_t index, int64_t of_sample,
                 FieldValues& values) {
  const Sample::Latents& latents = sample.latents;
  const size_t size = latents.mean.size();
  const std::span<float> drawn = std::span(std::get<std::vector<float>>(values))
                                     .subspan(index * of_sample, size);
  std::copy(latents.mean.begin(), latents.mean.end(), drawn.begin());
  if (!sample.draw.has_value()) return;
  std::vector<float> noise(size);
  RandomStream(*sample.draw).FillNormal(0, std::span(noise));
  for (size_t i = 0; i < size; ++i) {
    drawn[i] += latents.deviation[i] * noise[i];
  }
}

// A sample without a picture has a gray one. Latents stand for a picture,
// unless there is one beside them.
absl::Status ReadPixels(const Sample& sample, const FieldSpec& spec,
                        int64_t index, FieldValues& values) {
  if (!sample.latents.mean.empty() && sample.image.pixels.empty()) {
    const PictureSize& size = sample.latents.size;
    if (size != PictureSize{spec.shape.dim(1), spec.shape.dim(2)} ||
        static_cast<int64_t>(sample.latents.mean.size()) !=
            spec.shape.num_elements()) {
      return InvalidArgument(
          "{}: found latents of {}x{} in {}, expected {} channels of {}x{}",
          spec.job_field, size.height, size.width, sample.key,
          spec.shape.dim(0), spec.shape.dim(1), spec.shape.dim(2));
    }
    ReadLatents(sample, index, spec.shape.num_elements(), values);
    return absl::OkStatus();
  }
  if (!sample.views.channels.empty()) {
    const std::vector<float>& channels = sample.views.channels;
    const int64_t elements = spec.shape.num_elements();
    CHECK_EQ(static_cast<int64_t>(channels.size()), elements) << sample.key;
    std::copy(channels.begin(), channels.end(),
              std::get<std::vector<float>>(values).begin() + index * elements);
    return absl::OkStatus();
  }
  if (sample.image.pixels.empty()) {
    const int64_t elements = spec.shape.num_elements();
    std::fill_n(std::get<std::vector<float>>(values).begin() + index * elements,
                elements, 0.0F);
    return absl::OkStatus();
  }
  const auto channels = static_cast<int>(spec.shape.dim(0));
  const auto height = static_cast<int>(spec.shape.dim(1));
  const auto width = static_cast<int>(spec.shape.dim(2));
  // Gray before scaling: a third of the work.
  const Image& source = sample.image;
  const Image scaled =
      channels == 1
          ? ResizeAndCrop(WithChannels(source, 1), width, height)
          : WithChannels(ResizeAndCrop(source, width, height), channels);
  const size_t size = scaled.pixels.size();
  ToFloat(scaled, std::span(std::get<std::vector<float>>(values))
                      .subspan(index * size, size));
  return absl::OkStatus();
}

// The data set has as many tokens, of as many channels, as the job says; voxels
// are padded with zeros.
absl::Status ReadTokenSet(const Sample& sample, const FieldSpec& spec,
                          int64_t index, FieldValues& values) {
  const int64_t size = spec.shape.num_elements();
  const bool latents = !sample.latents.mean.empty();
  const auto found = static_cast<int64_t>(latents ? sample.latents.mean.size()
                                                  : sample.token_set.size());
  if (sample.voxels.empty()) {
    CHECK_EQ(found, size) << sample.key;
  } else {
    CHECK_EQ(found,
             static_cast<int64_t>(sample.voxels.size()) / 3 * spec.shape.dim(1))
        << sample.key;
    CHECK_LE(found, size) << sample.key;
  }
  const auto begin =
      std::get<std::vector<float>>(values).begin() + index * size;
  if (latents) {
    ReadLatents(sample, index, size, values);
  } else {
    std::copy(sample.token_set.begin(), sample.token_set.end(), begin);
  }
  std::fill_n(begin + found, size - found, 0.0F);
  return absl::OkStatus();
}

// The data set has no more than the job says; a prompt of a dry run has none.
absl::Status ReadVoxels(const Sample& sample, const FieldSpec& spec,
                        int64_t index, FieldValues& values) {
  const int64_t size = spec.shape.num_elements();
  const auto found = static_cast<int64_t>(sample.voxels.size());
  CHECK_LE(found, size) << sample.key;
  const auto end =
      std::copy(sample.voxels.begin(), sample.voxels.end(),
                std::get<std::vector<int32_t>>(values).begin() + index * size);
  std::fill_n(end, size - found, -1);
  return absl::OkStatus();
}

absl::Status ReadVoxelKinds(const Sample& sample, const FieldSpec& spec,
                            int64_t index, FieldValues& values) {
  const int64_t size = spec.shape.num_elements();
  const auto found = static_cast<int64_t>(sample.voxel_kinds.size());
  CHECK_LE(found, size) << sample.key;
  const auto end =
      std::copy(sample.voxel_kinds.begin(), sample.voxel_kinds.end(),
                std::get<std::vector<int32_t>>(values).begin() + index * size);
  std::fill_n(end, size - found, -1);
  return absl::OkStatus();
}

absl::Status ReadVoxelCount(const Sample& sample, const FieldSpec& /*spec*/,
                            int64_t index, FieldValues& values) {
  std::get<std::vector<int32_t>>(values)[index] =
      static_cast<int32_t>(sample.voxels.size() / 3);
  return absl::OkStatus();
}

absl::Status ReadSurface(const Sample& sample, const FieldSpec& spec,
                         int64_t index, FieldValues& values) {
  const absl::StatusOr<std::vector<float>> surface =
      DrawSurface(sample, spec.shape.dim(0), spec.apart);
  RETURN_IF_ERROR(WithContext(surface.status(), spec.job_field));
  std::copy(surface->begin(), surface->end(),
            std::get<std::vector<float>>(values).begin() +
                index * spec.shape.num_elements());
  return absl::OkStatus();
}

absl::Status ReadQueries(const Sample& sample, const FieldSpec& spec,
                         int64_t index, FieldValues& values) {
  const absl::StatusOr<std::vector<float>> queries =
      DrawQueries(sample, spec.shape.dim(0));
  RETURN_IF_ERROR(WithContext(queries.status(), spec.job_field));
  std::copy(queries->begin(), queries->end(),
            std::get<std::vector<float>>(values).begin() +
                index * spec.shape.num_elements());
  return absl::OkStatus();
}

// The data set has sequences no longer than the job says; a prompt has none.
absl::Status ReadTokens(const Sample& sample, int32_t padding, int64_t index,
                        const FieldSpec& spec, FieldValues& values) {
  const int64_t most = spec.shape.dim(0);
  const auto count = static_cast<int64_t>(sample.mesh_tokens.size());
  CHECK_LE(count, most) << sample.key;
  const auto end =
      std::copy(sample.mesh_tokens.begin(), sample.mesh_tokens.end(),
                std::get<std::vector<int32_t>>(values).begin() + index * most);
  std::fill_n(end, most - count, padding);
  return absl::OkStatus();
}

absl::Status ReadSequence(const Sample& sample, const FieldSpec& spec,
                          int64_t index, FieldValues& values) {
  return ReadTokens(sample,
                    sample.mesh_tokens.empty() ? 0 : sample.mesh_tokens.back(),
                    index, spec, values);
}

absl::Status ReadNextTokens(const Sample& sample, const FieldSpec& spec,
                            int64_t index, FieldValues& values) {
  return ReadTokens(sample, -1, index, spec, values);
}

absl::Status ReadSequenceLength(const Sample& sample, const FieldSpec& /*spec*/,
                                int64_t index, FieldValues& values) {
  std::get<std::vector<int32_t>>(values)[index] =
      static_cast<int32_t>(sample.mesh_tokens.size());
  return absl::OkStatus();
}

absl::Status ReadLabel(const Sample& sample, const FieldSpec& /*spec*/,
                       int64_t index, FieldValues& values) {
  if (sample.class_id < 0) {
    return InvalidArgument(
        "{}: found no class, expected one for a model with classes",
        sample.key);
  }
  std::get<std::vector<int32_t>>(values)[index] = sample.class_id;
  return absl::OkStatus();
}

// Longer sequences are cut, shorter ones padded with zeros.
absl::Status ReadText(const Sample& sample, const FieldSpec& spec,
                      int64_t index, FieldValues& values) {
  const int64_t tokens = spec.shape.dim(0), width = spec.shape.dim(1);
  if (sample.text_count > 0 && sample.text_width != width) {
    return InvalidArgument(
        "{}: found {}, expected {}, the width of the text states of {}",
        spec.job_field, width, sample.text_width, sample.key);
  }
  const int64_t read = std::min<int64_t>(sample.text_count, tokens) * width;
  const auto padding = std::copy_n(
      sample.text_tokens.begin(), read,
      std::get<std::vector<float>>(values).begin() + index * tokens * width);
  std::fill_n(padding, tokens * width - read, 0.0F);
  return absl::OkStatus();
}

absl::Status ReadTextCount(const Sample& sample, const FieldSpec& spec,
                           int64_t index, FieldValues& values) {
  // The field's typical value is the number of tokens of a whole text.
  std::get<std::vector<int32_t>>(values)[index] =
      std::min(sample.text_count, static_cast<int>(spec.typical));
  return absl::OkStatus();
}

absl::Status ReadPictureCount(const Sample& sample, const FieldSpec& spec,
                              int64_t index, FieldValues& values) {
  // The field's typical value is the number of tokens of a picture.
  std::get<std::vector<int32_t>>(values)[index] =
      sample.image.pixels.empty() ? 0 : static_cast<int32_t>(spec.typical);
  return absl::OkStatus();
}

// Zeros for a sample without.
absl::Status ReadPooledText(const Sample& sample, const FieldSpec& spec,
                            int64_t index, FieldValues& values) {
  const int64_t width = spec.shape.dim(0);
  const auto found = static_cast<int64_t>(sample.text_pooled.size());
  if (found > 0 && found != width) {
    return InvalidArgument(
        "{}: found {}, expected {}, the width of the pooled text of {}",
        spec.job_field, width, found, sample.key);
  }
  const auto end =
      std::copy(sample.text_pooled.begin(), sample.text_pooled.end(),
                std::get<std::vector<float>>(values).begin() + index * width);
  std::fill_n(end, width - found, 0.0F);
  return absl::OkStatus();
}

// As many rows for each layer as there are; those beyond the field's tokens are
// cut, missing ones padded with zeros.
absl::Status ReadTextLayer(const Sample& sample, const FieldSpec& spec,
                           int64_t index, FieldValues& values) {
  const int64_t tokens = spec.shape.dim(0), width = spec.shape.dim(1);
  if (sample.text_layer_count > 0 &&
      (sample.text_layer_width != width ||
       sample.text_layer_count % spec.num_layers != 0)) {
    return InvalidArgument(
        "{}: found {} of each of {} layers, expected them to fit the {} tokens "
        "of width {} of {}",
        spec.job_field, width, spec.num_layers, sample.text_layer_count,
        sample.text_layer_width, sample.key);
  }
  const int64_t of_layer = sample.text_layer_count / spec.num_layers;
  const int64_t read = std::min(of_layer, tokens) * width;
  const auto padding = std::copy_n(
      sample.text_layers.begin() + spec.layer * of_layer * width, read,
      std::get<std::vector<float>>(values).begin() + index * tokens * width);
  std::fill_n(padding, tokens * width - read, 0.0F);
  return absl::OkStatus();
}

// The element `index` of a field of vectors or matrices.
std::span<float> Element(const FieldSpec& spec, int64_t index,
                         FieldValues& values) {
  const auto size = static_cast<size_t>(spec.shape.num_elements());
  return std::span(std::get<std::vector<float>>(values))
      .subspan(index * size, size);
}

absl::Status ReadCaption(const Sample& sample, const FieldSpec& spec,
                         int64_t index, FieldValues& values) {
  FillByteText(sample.caption, spec.shape.dim(0), Element(spec, index, values));
  return absl::OkStatus();
}

absl::Status ReadCaptionCount(const Sample& sample, const FieldSpec& spec,
                              int64_t index, FieldValues& values) {
  const std::string_view text =
      ByteTextOf(sample.caption, static_cast<int64_t>(spec.typical));
  std::get<std::vector<int32_t>>(values)[index] =
      static_cast<int32_t>(text.size());
  return absl::OkStatus();
}

absl::Status ReadPooledCaption(const Sample& sample, const FieldSpec& spec,
                               int64_t index, FieldValues& values) {
  FillPooledByteText(sample.caption, Element(spec, index, values));
  return absl::OkStatus();
}

struct Row {
  FieldReader reader;
  DType dtype;
  int rank;
  bool from_caption = false;
};

// Stands for all TextLayerFields.
constexpr char kAnyTextLayer[] = "text_layer";

constexpr std::array<Row, 20> kReaders = {{
    {{kPixelsField, {.image = true}, ReadPixels}, DType::kFloat32, 3},
    {{kTokenSetField, {.token_set = true, .voxels = true}, ReadTokenSet},
     DType::kFloat32,
     2},
    {{kVoxelsField, {.voxels = true}, ReadVoxels}, DType::kInt32, 2},
    {{kVoxelCountField, {.voxels = true}, ReadVoxelCount}, DType::kInt32, 0},
    {{kVoxelKindsField, {.voxels = true}, ReadVoxelKinds}, DType::kInt32, 1},
    {{kSurfaceField, {.surface_points = true, .distances = true}, ReadSurface},
     DType::kFloat32,
     2},
    {{kQueriesField, {.surface_points = true, .distances = true}, ReadQueries},
     DType::kFloat32,
     2},
    {{kSequenceField, {.mesh_tokens = true}, ReadSequence}, DType::kInt32, 1},
    {{kNextTokensField, {.mesh_tokens = true}, ReadNextTokens},
     DType::kInt32,
     1},
    {{kSequenceLengthField, {.mesh_tokens = true}, ReadSequenceLength},
     DType::kInt32,
     0},
    {{kPictureCountField, {.image = true}, ReadPictureCount}, DType::kInt32, 0},
    {{kLabelField, {}, ReadLabel}, DType::kInt32, 0},
    {{kTextField, {.text = true}, ReadText}, DType::kFloat32, 2},
    {{kTextCountField, {.text = true}, ReadTextCount}, DType::kInt32, 0},
    {{kPooledTextField, {.text = true}, ReadPooledText}, DType::kFloat32, 1},
    {{kAnyTextLayer, {.text_layers = true}, ReadTextLayer}, DType::kFloat32, 2},
    {{kTextField, {.caption = true}, ReadCaption}, DType::kFloat32, 2, true},
    {{kAnyTextLayer, {.caption = true}, ReadCaption}, DType::kFloat32, 2, true},
    {{kTextCountField, {.caption = true}, ReadCaptionCount},
     DType::kInt32,
     0,
     true},
    {{kPooledTextField, {.caption = true}, ReadPooledCaption},
     DType::kFloat32,
     1,
     true},
}};

}  // namespace

const FieldReader& ReaderOf(const FieldSpec& spec) {
  const std::string_view name =
      spec.num_layers > 0 ? std::string_view(kAnyTextLayer) : spec.name;
  const auto row =
      std::find_if(kReaders.begin(), kReaders.end(), [&](const Row& known) {
        return known.reader.name == name &&
               known.from_caption == spec.from_caption;
      });
  CHECK(row != kReaders.end()) << "no data set fills the field " << spec.name;
  CHECK(spec.dtype == row->dtype && spec.shape.rank() == row->rank &&
        spec.max_rows == 0)
      << spec.name << " of " << spec.dtype << " " << spec.shape;
  return row->reader;
}

SampleParts PartsOf(std::span<const FieldSpec> fields) {
  SampleParts parts;
  for (const FieldSpec& spec : fields) {
    const SampleParts& needed = ReaderOf(spec).parts;
    parts.image = parts.image || needed.image;
    parts.text = parts.text || needed.text;
    parts.caption = parts.caption || needed.caption;
    parts.text_layers = parts.text_layers || needed.text_layers;
    parts.token_set = parts.token_set || needed.token_set;
    parts.surface_points = parts.surface_points || needed.surface_points;
    parts.distances = parts.distances || needed.distances;
    parts.mesh_tokens = parts.mesh_tokens || needed.mesh_tokens;
    parts.voxels = parts.voxels || needed.voxels;
  }
  return parts;
}

std::vector<FieldSpec> FieldsAt(std::span<const FieldSpec> fields,
                                const PictureSize& size) {
  std::vector<FieldSpec> sized(fields.begin(), fields.end());
  for (FieldSpec& spec : sized) {
    if (spec.name != kPixelsField) continue;
    spec.shape = {spec.shape.dim(0), size.height, size.width};
  }
  return sized;
}

FieldValues ZeroValues(const FieldSpec& spec, int64_t samples) {
  const int64_t elements = samples * spec.shape.num_elements();
  if (spec.dtype == DType::kInt32) return std::vector<int32_t>(elements);
  return std::vector<float>(elements);
}

absl::Status CheckFields(const Dataset& dataset,
                         std::span<const FieldSpec> fields) {
  const SampleParts parts = PartsOf(fields);
  const int64_t most = std::min(kMostChecked, dataset.size());
  for (int64_t i = 0; i < most; ++i) {
    const absl::StatusOr<Sample> sample = dataset.ReadParts(i, parts);
    if (!sample.ok()) continue;
    const Buckets* const buckets = dataset.buckets();
    const std::vector<FieldSpec> sized =
        buckets != nullptr
            ? FieldsAt(fields, buckets->sizes[buckets->of_sample[i]])
            : std::vector<FieldSpec>(fields.begin(), fields.end());
    for (const FieldSpec& spec : sized) {
      FieldValues values = ZeroValues(spec, 1);
      RETURN_IF_ERROR(ReaderOf(spec).read(*sample, spec, 0, values));
    }
    const bool has_text = (!parts.text || sample->text_count > 0) &&
                          (!parts.caption || !sample->caption.empty());
    if (has_text) return absl::OkStatus();
  }
  if (parts.caption) {
    LOG(WARNING) << "none of the first " << most
                 << " samples has a caption, which the model reads: samples "
                    "without one are trained without text";
  }
  if (parts.text) {
    LOG(WARNING) << "none of the first " << most
                 << " samples has text states, which the model reads: samples "
                    "without them are trained without text";
  }
  return absl::OkStatus();
}

}  // namespace trireme
