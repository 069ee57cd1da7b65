// Records the collectives of tensor, context and expert parallelism that a
// chunk's passes ask of imagined communicators, and what is computed meanwhile.

#ifndef TRIREME_TRAINER_PLANNING_RECORDED_COLLECTIVES_H_
#define TRIREME_TRAINER_PLANNING_RECORDED_COLLECTIVES_H_

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/dry.h"
#include "runtime/device/device.h"
#include "scheduler/pieces/model_pieces.h"

namespace trireme {

// One collective, as often as it was asked for.
struct RecordedCollective {
  enum class Pass : uint8_t { kForward, kBackward, kWeightGradients };

  PieceCollective::Group group = PieceCollective::Group::kTensor;
  PieceCollective::Kind kind = PieceCollective::Kind::kAllReduce;
  int64_t bytes = 0;
  Pass pass = Pass::kForward;
  // FLOPs of products from its start until it was waited for.
  int64_t flops_behind = 0;
};

// A dry world whose communicators record. Outlives them; the device, on which
// their tensors are, outlives it.
class RecordingWorld final : public CommunicatorFactory {
 public:
  RecordingWorld(int ranks, Device& device);

  int world_rank() const override { return dry_.world_rank(); }
  int world_size() const override { return dry_.world_size(); }
  bool imagined() const override { return true; }
  using CommunicatorFactory::Create;
  std::unique_ptr<Communicator> Create(std::span<const int> ranks,
                                       std::string_view name,
                                       Progress progress) override;

  // What comes next is asked for in this pass.
  void SetPass(RecordedCollective::Pass pass) { pass_ = pass; }
  const std::vector<RecordedCollective>& recorded() const { return recorded_; }

 private:
  class Recorder;
  class Flight;

  DryWorld dry_;
  Device& device_;
  RecordedCollective::Pass pass_ = RecordedCollective::Pass::kForward;
  std::vector<RecordedCollective> recorded_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_PLANNING_RECORDED_COLLECTIVES_H_
