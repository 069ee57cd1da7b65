// What the tokens of a model attend to across: a class, states that an encoder
// made or a caption's bytes, or a picture's patches.

#ifndef TRIREME_MODELS_TRANSFORMER_CROSS_CONDITION_H_
#define TRIREME_MODELS_TRANSFORMER_CROSS_CONDITION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/batch.h"
#include "models/input_gradients.h"
#include "models/objective/objective.h"
#include "models/triposg/triposg.pb.h"
#include "parallel/grid/context.h"
#include "parallel/layers/layers.h"
#include "parallel/parameters/parameter_store.h"

namespace trireme {

struct CrossCondition {
  enum class Kind { kClass, kFeatures, kPicture };
  Kind kind = Kind::kClass;
  // Of kClass. 0: unconditional. The table has one more row, for dropped
  // classes.
  int64_t classes = 0;
  // Of kFeatures.
  int64_t feature_tokens = 0;
  int64_t feature_width = 0;
  bool caption_bytes = false;
  // Of kPicture, in colour.
  int64_t picture_side = 0;
  int64_t patch = 0;

  // What blocks attend to: tokens, and their channels in a model of a width.
  int64_t tokens() const;
  int64_t width(int64_t hidden) const {
    return kind == Kind::kFeatures ? feature_width : hidden;
  }
};

// Of a job's messages, null where they are left out; without either the
// preset's features where it has some, else the data's classes. Errors begin
// with `model` ("model.triposg") and name the field.
absl::StatusOr<CrossCondition> ResolveCrossCondition(
    std::string_view model, const Triposg::Features* features,
    const Triposg::Picture* picture, const CrossCondition& preset,
    int64_t classes, int64_t hidden);
void FillFeatures(const CrossCondition& condition, Triposg::Features& features);
void FillPicture(const CrossCondition& condition, Triposg::Picture& picture);

// What a chunk reads of it: all blocks how much there is, the embedding itself.
std::vector<FieldSpec> FieldsOf(const CrossCondition& condition,
                                std::string_view model, bool embedding);
// ModelFamily::NoCondition.
std::optional<int32_t> NoConditionOf(const CrossCondition& condition,
                                     std::string_view field);

// What the first stage reads of one microbatch; compute dtype unless said. One
// of them, as the condition says.
struct CrossConditionInputs {
  Tensor labels;    // int32 [b]; `classes` = no class
  Tensor features;  // [b, n, feature_width]
  Tensor picture;   // [b, 3, side, side]
};
CrossConditionInputs ConditionInputsOf(const CrossCondition& condition,
                                       const Batch& microbatch,
                                       const Objective& objective,
                                       Device& device, DType dtype);
// int32 [b]: the condition's tokens that a sample has. Undefined: all.
Tensor ConditionCountsOf(const CrossCondition& condition,
                         const Batch& microbatch, const Objective& objective);

// From inputs to tokens: a class's row of a table, states as they are, a
// picture's patches through a linear layer, with their places.
class CrossConditionEmbedding {
 public:
  CrossConditionEmbedding(ParameterStore& store,
                          const CrossCondition& condition, int64_t hidden);
  // [b, n, width], whole on every rank.
  ShardedVariable Forward(ForwardContext& context,
                          const CrossConditionInputs& inputs,
                          const InputWatch& watch) const;

 private:
  CrossCondition condition_;
  int64_t hidden_;
  Parameter* class_table_ = nullptr;
  std::unique_ptr<ReplicatedLinear> patches_;
  Tensor places_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_TRANSFORMER_CROSS_CONDITION_H_
