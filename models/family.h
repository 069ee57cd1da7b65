// A model family, resolved from a job: what the trainer, the planner and the
// sampler know of a model. A family is a folder under models/ with one of these
// and a row in models/resolve.cc; docs/adding.md walks through it.

#ifndef TRIREME_MODELS_FAMILY_H_
#define TRIREME_MODELS_FAMILY_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/batch.h"
#include "models/image/picture_size.h"
#include "models/objective/objective.h"
#include "models/sampling/token_grammar.h"
#include "models/weights/name_table.h"
#include "moe/moe_config.h"
#include "parallel/executor/chunk.h"
#include "parallel/grid/process_grid.h"
#include "parallel/parameters/parameter_store.h"
#include "scheduler/pieces/model_shape.h"

namespace trireme {

// Blocks [first, end) of a model.
struct BlockRange {
  int64_t first = 0;
  int64_t end = 0;
};

// What blocks drop after forward and make again in backward.
struct BlockRecompute {
  enum class Kind {
    kNone,
    // Modulated norms and activation functions.
    kSelective,
    // All but the block's inputs, in the first `blocks` blocks of the chunk.
    kFull,
  };
  Kind kind = Kind::kNone;
  int64_t blocks = std::numeric_limits<int64_t>::max();
};

// One of a rank's chunks of a model, and the microbatches that it runs on.
struct ChunkRequest {
  BlockRange blocks;
  // Whether the chunk embeds and ends the model. Default: where its blocks do.
  std::optional<bool> embedding;
  std::optional<bool> head;
  BlockRecompute recompute;
  bool sequence_parallel = false;
  // The pipeline rank of each of the model's blocks (BlockRanks), by which
  // skips stay where they are read; empty: all cross with x.
  std::vector<int32_t> block_ranks;
  // 0: the whole local batch, whatever its size.
  int64_t microbatch_size = 1;
  // Number of the local batch's first microbatch.
  int64_t first_microbatch = 0;

  bool has_embedding() const { return embedding.value_or(blocks.first == 0); }
  // `num_blocks`: the model's.
  bool has_head(int64_t num_blocks) const {
    return head.value_or(blocks.end == num_blocks);
  }
};

// What all chunks of a rank compute on: set before each step.
class StepInputs {
 public:
  // The local batch, with the fields of the chunks, and what is learnt from it.
  // The objective outlives its use.
  void Set(Batch batch, const Objective& objective) {
    batch_ = std::move(batch);
    objective_ = &objective;
    ++version_;
  }
  const Batch& batch() const { return batch_; }
  const Objective& objective() const { return *objective_; }
  // The objective's, if one is set.
  KeyValueCache* key_value_cache() const {
    return objective_ == nullptr ? nullptr : objective_->key_value_cache();
  }
  // Another one after each Set: what was made of the batch is out of date.
  int64_t version() const { return version_; }

 private:
  Batch batch_;
  const Objective* objective_ = nullptr;
  int64_t version_ = 0;
};

// Sizes that a model is evaluated at, where they are not the job's.
struct InputSizes {
  int64_t height = 0;  // of pictures
  int64_t width = 0;
  int64_t text_tokens = 0;  // 0: there is no text
  // Of each of a language model's layers; 0: there are none.
  int64_t text_layer_tokens = 0;
};

// How the class of Names() is called, and with which tensors.
struct ClassCall {
  // What it computes on, and what it gives.
  std::string_view samples = "hidden_states";
  std::string_view output = "sample";
  // Its timestep of the time 1.
  double timestep_scale = 1000;
  // The side of the patches that it is given as tokens, channels outermost,
  // with their places as img_ids and the text's as txt_ids; 0: it is given
  // pictures.
  int64_t packed_patch = 0;
  // Whether it is told its guidance.
  bool guidance = false;
  // Empty: it knows no times.
  std::string_view timestep = "timestep";
  std::string_view text = "encoder_hidden_states";
  std::string_view pooled = "pooled_projections";
  // [layers, n, tokens, width] of a language model; empty: none.
  std::string_view text_layers;
  // Its output is x0 − noise, which our prediction is the negative of.
  bool predicts_data_minus_noise = false;
};

// Immutable; one a job.
class ModelFamily {
 public:
  virtual ~ModelFamily() = default;

  // Name and sizes, for people: "DiT: 12 layers, width 384, ...".
  virtual std::string Describe() const = 0;
  // As the planner sees it, but for what precision and optimizer decide
  // (trainer/planning/model_shape_of.h).
  virtual ModelShape Shape() const = 0;

  // The mixtures of experts in its blocks; null: there are none.
  virtual const MoeConfig* experts() const { return nullptr; }

  // What the model learns to make; fp32, or int32 of sequences of tokens.
  virtual FieldSpec samples() const = 0;
  // What it predicts of a sample (ToSamples): as much, or more channels; or
  // the logits of classes.
  virtual FieldSpec predictions() const { return samples(); }
  // What the chunk's units read of a batch.
  virtual std::vector<FieldSpec> Fields(const ChunkRequest& request) const = 0;
  // Whether the model gives back what it is given, and draws nothing: an
  // autoencoder. It adds its losses itself.
  virtual bool reconstructs() const { return false; }
  // Why the model cannot be trained in this type, if so.
  virtual absl::Status CheckPrecision(DType /*dtype*/) const {
    return absl::OkStatus();
  }
  // Whether the model names the classes of its samples, and draws nothing.
  virtual bool classifies() const { return false; }
  // Of a model of sequences, which predicts each token from those before it,
  // the sequences that there may be: samples are drawn token by token
  // (Objective::key_value_cache). Null: they are drawn as a whole.
  virtual const TokenGrammar* grammar() const { return nullptr; }
  // The number of classes that condition it; 0: none do.
  virtual int64_t num_classes() const = 0;
  // What a field holds of a sample without a condition; absent: the field is no
  // condition that can be left out.
  virtual std::optional<int32_t> NoCondition(std::string_view field) const = 0;

  // The chunk with its parameters in `store`, whose type it computes in. The
  // head hands its prediction to the inputs' objective (Objective::AddLosses)
  // with this rank's part of the target. Store and inputs outlive the chunk.
  virtual std::unique_ptr<Chunk> Build(const ChunkRequest& request,
                                       ParameterStore& store,
                                       const ProcessGrid& grid,
                                       const StepInputs& inputs) const = 0;
  // Names and places of its parameters in the ecosystem's files. Errors: why no
  // class there computes what this model does.
  virtual absl::StatusOr<NameTable> Names() const = 0;
  virtual ClassCall Call() const { return {}; }
  // The same model, with the same parameters, at other sizes. Errors name the
  // size as the class does (Call().samples, encoder_hidden_states); by default,
  // that this is no model of pictures.
  virtual absl::StatusOr<std::shared_ptr<const ModelFamily>> ForInputs(
      const InputSizes& sizes) const;
  // From the prediction as Build's head gives it, with all tokens and any
  // padding behind them, to predictions [n, ..]; of tokens of samples' channels
  // likewise to samples. Models whose predictions nobody asks for
  // (reconstructs, grammar) leave it as it is here.
  virtual Tensor ToSamples(const Tensor& prediction) const;
};

// All fields of the whole model.
inline std::vector<FieldSpec> AllFields(const ModelFamily& family) {
  return family.Fields({.blocks = {0, family.Shape().layers}});
}

// The same model over pictures of `size`. Errors: those of ForInputs.
absl::StatusOr<std::shared_ptr<const ModelFamily>> FamilyAt(
    const ModelFamily& family, const PictureSize& size);

}  // namespace trireme

#endif  // TRIREME_MODELS_FAMILY_H_
