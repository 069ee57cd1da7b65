// A batch: named fields of some samples, as data sets fill them and objectives
// and models read them. A field is dense, with elements of one shape a sample,
// or ragged, with any number of rows a sample.

#ifndef TRIREME_MODELS_BATCH_H_
#define TRIREME_MODELS_BATCH_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/device/tensor.h"

namespace trireme {

// What a data set can fill (models/data/field_readers.h).
inline constexpr char kPixelsField[] = "pixels";  // fp32 [c, h, w] in [−1, 1]
// fp32 [tokens, channels], in no order: what samples that are no pictures are
// made of.
inline constexpr char kTokenSetField[] = "token_set";
// int32 [tokens, 3]: where each token of kTokenSetField lies on a grid, x, y,
// z, sorted by blocks of 8³ places (models/shape/voxel_tokens.h); −1 as padding
// behind them. And int32: how many a sample has, without padding.
inline constexpr char kVoxelsField[] = "voxels";
inline constexpr char kVoxelCountField[] = "voxel_count";
// int32 [tokens]: the VoxelKind of each (runtime/core/voxel_order.h).
inline constexpr char kVoxelKindsField[] = "voxel_kinds";
// fp32 [n, 6]: points on a shape's surface and their outward unit normals; the
// first of them, as many as FieldSpec::apart says, lie far apart.
inline constexpr char kSurfaceField[] = "surface";
// fp32 [n, 7]: points about a shape's surface with their signed distances and,
// of those on it, normals (runtime/ops/distance_loss.h).
inline constexpr char kQueriesField[] = "queries";
// int32 [tokens]: a sequence of tokens with its end, which is also the padding
// behind it; and the same with −1 as padding, where nothing is learnt.
inline constexpr char kSequenceField[] = "sequence";
inline constexpr char kNextTokensField[] = "next_tokens";
// int32: how many tokens a sequence has, without padding.
inline constexpr char kSequenceLengthField[] = "sequence_length";
inline constexpr char kLabelField[] = "label";  // int32; −1 without a class
inline constexpr char kTextField[] = "text";    // fp32 [tokens, width]
inline constexpr char kTextCountField[] = "text_count";  // int32 of kTextField
inline constexpr char kPooledTextField[] = "text_pooled";  // fp32 [width]
// fp32 [tokens, width]: the states of one of a language model's layers.
std::string TextLayerField(int64_t layer);
// int32: the tokens that a model makes of kPixelsField where the picture is
// what a sample is conditioned by; 0 of a sample without a picture.
inline constexpr char kPictureCountField[] = "picture_count";
// What only evaluations fill: where a model is told a scale of guidance, each
// sample's instead of the model's own.
inline constexpr char kGuidanceField[] = "guidance";  // fp32

struct FieldSpec {
  std::string name;
  DType dtype = DType::kFloat32;
  // Of one sample; of one row where the field is ragged.
  Shape shape;
  // 0: dense. Otherwise the most rows of one sample, for which a dry batch has
  // room.
  int64_t max_rows = 0;
  // A value that every element may have where only sizes and times matter.
  double typical = 0;
  // The field (int32) of how many of a sample's rows are no padding; empty:
  // all.
  std::string counted_by;
  // Of kSurfaceField: how many points that lie far apart come first.
  int64_t apart = 0;
  // Of kVoxelsField: places along a side of the grid, where a sample's typical
  // voxels are different ones (TypicalBatch); 0: all are at place 0.
  int64_t places = 0;
  // Text is made of the sample's caption (models/data/byte_text.h), not read
  // as an encoder's states.
  bool from_caption = false;
  // Of a TextLayerField: the layer, and how many a sample has; 0: another
  // field.
  int64_t layer = 0;
  int64_t num_layers = 0;
  // The field of the job that sets the shape, for errors.
  std::string job_field;

  // Of `rows` samples (or rows) together.
  Shape ShapeOf(int64_t rows) const;
};

struct Field {
  Tensor values;  // [samples, ..] or, ragged, [rows of all samples, ..]
  // Ragged: sample i has rows [offsets[i], offsets[i + 1]). Empty: dense.
  std::vector<int64_t> offsets;
};

struct Batch {
  int64_t step = 0;  // from 1
  // Each sample's position in the order of consumption: what keys its random
  // numbers.
  std::vector<uint64_t> samples;
  // Of the sizes that pictures come in, theirs (models/data/buckets.h); 0 where
  // all come in one.
  int32_t bucket = 0;
  std::map<std::string, Field, std::less<>> fields;
  // Of the step's samples over the whole job, what Objective::counted_field
  // says; 0: nobody has counted, as where only sizes and times matter.
  double counted = 0;

  int64_t size() const { return static_cast<int64_t>(samples.size()); }
  bool Has(std::string_view field) const { return fields.contains(field); }
  // The field's values; CHECKs that it is there.
  const Tensor& operator[](std::string_view field) const;
  // Samples [begin, end). Shares the values.
  Batch Slice(int64_t begin, int64_t end) const;
};

// The sum of an int32 field over a batch's samples, on the host; 0 of a batch
// without it, and on a dry device.
double SumOf(const Batch& batch, std::string_view field);

// Fields of the right sizes without values, for dry devices; ragged ones with
// as many rows as there may be.
Batch EmptyBatch(Device& device, std::span<const FieldSpec> fields,
                 int64_t samples);
// The same with the fields' typical values. Voxels lie on planes that are a
// block of 8 places apart, as far as they need no more: a surface, too, passes
// few of the grid's blocks, and has a layer of voxels in each.
Batch TypicalBatch(Device& device, std::span<const FieldSpec> fields,
                   int64_t samples);

}  // namespace trireme

#endif  // TRIREME_MODELS_BATCH_H_
