// A tiny DiT, MMDiT, HiDream, TripoSG, sparse DiT, shapes' or voxels'
// autoencoder, meshes' tokens or Swin job under any plan, for tests that
// compare one grid with another.

#ifndef TRIREME_TESTS_PARITY_TINY_JOB_H_
#define TRIREME_TESTS_PARITY_TINY_JOB_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/dit/dit.pb.h"
#include "models/objective/diffusion.h"
#include "models/objective/rectified_flow.h"
#include "models/transformer/cross_condition.h"
#include "moe/moe_config.h"
#include "parallel/parameters/trained_parameters.h"
#include "runtime/comm/communicator.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/verification/parity.h"

namespace trireme {

enum class Text { kNone, kCross, kJoint };

// What a case changes of the tiny job and of its plan.
struct GridCase {
  uint32_t tp = 1;
  uint32_t cp = 1;
  uint32_t pp = 1;
  uint32_t dp = 1;
  uint32_t ep = 1;
  DType dtype = DType::kFloat64;
  Text text = Text::kNone;
  // The picture's height in pixels; half as many rows of four tokens.
  int64_t height = 8;
  // Beside it, heights that pictures also come in: a step's are all of one.
  std::vector<int64_t> other_heights;
  int64_t layers = 4;
  // Four channels each.
  int64_t heads = 8;
  // Samples per step.
  int64_t batch = 8;
  Dit::Positions positions = Dit::ROPE;
  bool qk_norm = true;
  // Sets of as many tokens in place of pictures; then there are no positions.
  bool token_set = false;
  // More than 0: with the places of a cube of so many tokens a side.
  int64_t lattice = 0;
  // An MMDiT, with joint text: the last `single_layers` blocks are single, the
  // picture attends to itself as well in the first `image_attention_layers`.
  bool mmdit = false;
  int64_t single_layers = 2;
  int64_t image_attention_layers = 0;
  // More than 1: as many pictures a sample, which share the height.
  int64_t views = 1;
  bool view_streams = false;
  // A HiDream, whose last `single_layers` blocks are single.
  bool hidream = false;
  // A TripoSG over sets of tokens, which attends to that.
  std::optional<CrossCondition::Kind> triposg;
  // A sparse transformer over voxels, three for each row of pixels of the
  // others, with half as many heads of keys, which attends to that.
  std::optional<CrossCondition::Kind> sparse_dit;
  // An autoencoder of shapes, half of whose blocks encode; as many latents as
  // the others have tokens.
  bool shape_vae = false;
  // Which learns this in place of distances.
  bool occupancy = false;
  // An autoencoder of sparse voxels: one or two blocks make them coarser, as
  // many make them finer, the others encode or decode.
  bool sparse_vae = false;
  // Of a DiT: blocks embed times and classes themselves.
  bool conditions_per_block = false;
  // A model of sequences, of at most as many tokens as the others have.
  bool mesh_tokens = false;
  // A Swin V2 of two stages of as many blocks, whose every second block has
  // experts where there are any.
  bool swin = false;
  // That leaves branches out of samples.
  double drop_path = 0;
  // What is learnt: a flow, or this. A DiT predicts variances where it learns
  // them.
  RectifiedFlowConfig flow;
  std::optional<DiffusionConfig> diffusion;
  // Of all gradients together; 1 clips nothing here.
  double clip_norm = 1;
  // What trains.
  TrainedParameters trained;
  // Linear layers of blocks multiply in FP8.
  bool fp8 = false;
  // With scales of earlier steps.
  bool delayed = false;
  // In place of MLPs.
  std::optional<MoeConfig> moe;
  // The rest of the plan: the grid comes from above; buckets are small unless
  // it says otherwise.
  Plan plan;

  // What it is made of: its sizes, and what it changes.
  std::vector<std::string> Features() const;
  // Its features; of letters, digits and underscores.
  std::string Name() const;
  int64_t ranks() const { return int64_t{tp} * cp * pp * dp; }
};

// A plan's fields as text.
Plan PlanFromText(const char* text);

// The same job on one rank.
GridCase OneRank(const GridCase& grid);

TrainingSetup SetupOf(const GridCase& grid);
// Resolved.
Plan PlanOf(const GridCase& grid);
// Random samples, labels and texts, keyed by sample.
BatchSource RandomBatches(const TrainingSetup& setup);

// Trains three steps of random samples with the ranks as threads. `wrap`, if
// given, makes the factory that the job uses from the real one.
using FactoryWrapper =
    std::function<std::unique_ptr<CommunicatorFactory>(CommunicatorFactory&)>;
// Each rank's device is `device`'s, if given.
using DeviceMaker = std::function<std::unique_ptr<Device>(int rank)>;
GridRecord Record(const GridCase& grid, const FactoryWrapper& wrap = nullptr,
                  const DeviceMaker& device = nullptr);

// Records of OneRank, one for all cases of a job.
class References {
 public:
  const GridRecord& Of(const GridCase& grid);

 private:
  std::map<std::string, GridRecord> records_;
};

ParityReport Compare(const GridRecord& reference, const GridRecord& record);

}  // namespace trireme

#endif  // TRIREME_TESTS_PARITY_TINY_JOB_H_
