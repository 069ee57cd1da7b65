#include "models/transformer/cross_condition.h"

#include "fmt/format.h"
#include "models/data/byte_text.h"
#include "models/transformer/position_table.h"
#include "models/transformer/streams.h"
#include "parallel/layers/functional.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

using Kind = CrossCondition::Kind;

// Bounds that no real model passes; they keep products of sizes in 64 bits.
constexpr int64_t kMaxWidth = 1 << 17;
constexpr int64_t kMaxTokens = 1 << 16;
constexpr int64_t kMaxByteTokens = 4096;
constexpr int64_t kMaxSide = 1 << 12;

constexpr int64_t kPictureSide = 64;
constexpr int64_t kPicturePatch = 8;
constexpr int64_t kColors = 3;
constexpr double kTableStddev = 0.5;

absl::Status ResolveFeatures(std::string_view model,
                             const Triposg::Features& features,
                             CrossCondition& condition) {
  condition.kind = Kind::kFeatures;
  if (features.tokens() > 0) condition.feature_tokens = features.tokens();
  if (features.width() > 0) condition.feature_width = features.width();
  condition.caption_bytes = features.has_bytes();
  if (condition.caption_bytes) {
    RETURN_IF_ERROR(CheckRange(fmt::format("{}.features.tokens", model),
                               condition.feature_tokens, 1, kMaxByteTokens));
    RETURN_IF_ERROR(CheckRange(fmt::format("{}.features.width", model),
                               features.width(), 0, 0));
    condition.feature_width = ByteTextWidth(condition.feature_tokens);
  }
  RETURN_IF_ERROR(CheckRange(fmt::format("{}.features.tokens", model),
                             condition.feature_tokens, 1, kMaxTokens));
  return CheckRange(fmt::format("{}.features.width", model),
                    condition.feature_width, 1, kMaxWidth);
}

absl::Status ResolvePicture(std::string_view model,
                            const Triposg::Picture& picture, int64_t hidden,
                            CrossCondition& condition) {
  condition.kind = Kind::kPicture;
  condition.picture_side =
      picture.has_resolution() ? picture.resolution() : kPictureSide;
  condition.patch = picture.has_patch() ? picture.patch() : kPicturePatch;
  RETURN_IF_ERROR(CheckRange(fmt::format("{}.picture.resolution", model),
                             condition.picture_side, 1, kMaxSide));
  RETURN_IF_ERROR(CheckRange(fmt::format("{}.picture.patch", model),
                             condition.patch, 1, condition.picture_side));
  if (condition.picture_side % condition.patch != 0) {
    return InvalidArgument(
        "{}.picture.patch: found {}, expected a divisor of the picture's {} "
        "pixels a side",
        model, condition.patch, condition.picture_side);
  }
  // The fixed table of places has two axes of sines and cosines.
  if (hidden % 4 != 0) {
    return InvalidArgument(
        "{}.hidden: found {}, expected a multiple of 4 with a picture", model,
        hidden);
  }
  return CheckRange(fmt::format("{}.picture.patch's tokens", model),
                    condition.tokens(), 1, kMaxTokens);
}

// Rows and columns of a picture's patches.
std::vector<double> PatchPositions(const CrossCondition& condition) {
  const int64_t side = condition.picture_side / condition.patch;
  std::vector<double> positions;
  for (int64_t i = 0; i < side * side; ++i) {
    positions.push_back(static_cast<double>(i / side));
    positions.push_back(static_cast<double>(i % side));
  }
  return positions;
}

}  // namespace

int64_t CrossCondition::tokens() const {
  switch (kind) {
    case Kind::kClass:
      return 1;
    case Kind::kFeatures:
      return feature_tokens;
    case Kind::kPicture:
      return (picture_side / patch) * (picture_side / patch);
  }
  return 0;
}

absl::StatusOr<CrossCondition> ResolveCrossCondition(
    std::string_view model, const Triposg::Features* features,
    const Triposg::Picture* picture, const CrossCondition& preset,
    int64_t classes, int64_t hidden) {
  CrossCondition condition = preset;
  if (features != nullptr) {
    RETURN_IF_ERROR(ResolveFeatures(model, *features, condition));
  } else if (picture != nullptr) {
    RETURN_IF_ERROR(ResolvePicture(model, *picture, hidden, condition));
  } else if (preset.feature_tokens > 0) {
    RETURN_IF_ERROR(ResolveFeatures(model, {}, condition));
  } else {
    condition.classes = classes;
  }
  return condition;
}

void FillFeatures(const CrossCondition& condition,
                  Triposg::Features& features) {
  features.set_tokens(condition.feature_tokens);
  if (!condition.caption_bytes) features.set_width(condition.feature_width);
}

void FillPicture(const CrossCondition& condition, Triposg::Picture& picture) {
  picture.set_resolution(condition.picture_side);
  picture.set_patch(condition.patch);
}

std::vector<FieldSpec> FieldsOf(const CrossCondition& condition,
                                std::string_view model, bool embedding) {
  std::vector<FieldSpec> fields;
  switch (condition.kind) {
    case Kind::kClass:
      if (embedding && condition.classes > 0) {
        fields.push_back({.name = kLabelField, .dtype = DType::kInt32});
      }
      break;
    case Kind::kFeatures:
      fields.push_back(
          {.name = kTextCountField,
           .dtype = DType::kInt32,
           .typical = static_cast<double>(condition.feature_tokens),
           .from_caption = condition.caption_bytes,
           .job_field = fmt::format("{}.features.tokens", model)});
      if (embedding) {
        fields.push_back(
            {.name = kTextField,
             .shape = {condition.feature_tokens, condition.feature_width},
             .from_caption = condition.caption_bytes,
             .job_field = fmt::format("{}.features.width", model)});
      }
      break;
    case Kind::kPicture:
      fields.push_back({.name = kPictureCountField,
                        .dtype = DType::kInt32,
                        .typical = static_cast<double>(condition.tokens()),
                        .job_field = fmt::format("{}.picture", model)});
      if (embedding) {
        fields.push_back(
            {.name = kPixelsField,
             .shape = {kColors, condition.picture_side, condition.picture_side},
             .job_field = fmt::format("{}.picture.resolution", model)});
      }
      break;
  }
  return fields;
}

std::optional<int32_t> NoConditionOf(const CrossCondition& condition,
                                     std::string_view field) {
  // The table's last row is that of no class.
  if (field == kLabelField) return static_cast<int32_t>(condition.classes);
  if (field == kTextCountField || field == kPictureCountField) return 0;
  return std::nullopt;
}

CrossConditionInputs ConditionInputsOf(const CrossCondition& condition,
                                       const Batch& microbatch,
                                       const Objective& objective,
                                       Device& device, DType dtype) {
  CrossConditionInputs inputs;
  const auto typed = [&](const Tensor& x) {
    return x.dtype() == dtype ? x : Cast(x, dtype);
  };
  switch (condition.kind) {
    case Kind::kClass:
      inputs.labels =
          condition.classes > 0
              ? objective.Condition(microbatch, kLabelField,
                                    static_cast<int32_t>(condition.classes))
              : Full(device, {microbatch.size()}, DType::kInt32, 0.0);
      break;
    case Kind::kFeatures:
      inputs.features = typed(microbatch[kTextField]);
      break;
    case Kind::kPicture:
      inputs.picture = typed(microbatch[kPixelsField]);
      break;
  }
  return inputs;
}

Tensor ConditionCountsOf(const CrossCondition& condition,
                         const Batch& microbatch, const Objective& objective) {
  switch (condition.kind) {
    case Kind::kClass:
      break;
    case Kind::kFeatures:
      return objective.Condition(microbatch, kTextCountField, /*none=*/0);
    case Kind::kPicture:
      return objective.Condition(microbatch, kPictureCountField, /*none=*/0);
  }
  return Tensor();
}

CrossConditionEmbedding::CrossConditionEmbedding(
    ParameterStore& store, const CrossCondition& condition, int64_t hidden)
    : condition_(condition), hidden_(hidden) {
  if (condition.kind == Kind::kClass) {
    class_table_ = &store.Create(
        "class_embedding.table", {condition.classes + 1, hidden}, {},
        {.kind = Initializer::Kind::kNormal, .stddev = kTableStddev},
        /*decay=*/false);
  }
  if (condition.kind == Kind::kPicture) {
    patches_ = std::make_unique<ReplicatedLinear>(
        store, "picture_embedding", kColors * condition.patch * condition.patch,
        hidden);
    places_ = SinCosTable(store.device(), hidden, /*axes=*/2,
                          PatchPositions(condition), store.dtype());
  }
}

ShardedVariable CrossConditionEmbedding::Forward(
    ForwardContext& context, const CrossConditionInputs& inputs,
    const InputWatch& watch) const {
  switch (condition_.kind) {
    case Kind::kClass:
      break;
    case Kind::kFeatures:
      return watch(context, kTextField, BatchConstant(inputs.features));
    case Kind::kPicture:
      return AddConstant(
          context,
          patches_->Forward(context, BatchConstant(Patchify(inputs.picture,
                                                            condition_.patch))),
          places_);
  }
  const ShardedVariable row =
      EmbeddingLookup(context, *class_table_, inputs.labels, BatchStates());
  return {
      Reshape(context.tape, row.variable, {inputs.labels.dim(0), 1, hidden_}),
      row.states};
}

}  // namespace trireme
