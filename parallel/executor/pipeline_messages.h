// The messages of one rank's list of a Program on their way: what passes have
// made until it is sent, sends in flight, and what was received or handed over
// on this rank until a pass takes it.

#ifndef TRIREME_PARALLEL_EXECUTOR_PIPELINE_MESSAGES_H_
#define TRIREME_PARALLEL_EXECUTOR_PIPELINE_MESSAGES_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "parallel/executor/chunk.h"
#include "parallel/grid/context.h"
#include "runtime/comm/communicator.h"
#include "scheduler/program/program.h"

namespace trireme {

class PipelineMessages {
 public:
  // Tensors that arrive together, once the events are over.
  struct Arrival {
    std::vector<Tensor> tensors;
    std::vector<Event> events;
  };

  // `pipeline_rank`: whose list of the Program. All outlive it.
  PipelineMessages(ParallelContext& context, const Program& program,
                   int pipeline_rank);

  // Hands what the pass `instruction` made, tensors of `specs`, to its Send, or
  // to the next stage on this rank. Skips that stay wait for whoever reads
  // them.
  void Deliver(const Instruction& instruction, Payload payload,
               const std::vector<BoundarySpec>& specs,
               std::vector<Tensor> tensors);
  void Send(const Instruction& instruction);
  // Tensors of `specs` but for skips that stay, the Send's on the other side.
  void Receive(const Instruction& instruction,
               const std::vector<BoundarySpec>& specs);
  // What came for a pass of the chunk, tensors of `specs` with the skips that
  // have stayed; none where nothing was to come.
  std::optional<Arrival> Take(Payload payload, int microbatch, int chunk,
                              const std::vector<BoundarySpec>& specs);

  // Sends that are over, of those that a computation has run behind.
  void ReleaseCompletedSends();
  void AwaitSends();

 private:
  // A message on its way, and what it carries.
  struct Departure {
    std::vector<Tensor> tensors;
    std::vector<Event> events;
    // A computation has run since: only then is its memory given back, so that
    // a dry run, where messages take no time, counts it as a real one does.
    bool outlived = false;
  };
  using Key = std::tuple<Payload, int, int>;  // microbatch, chunk

  ParallelContext& context_;
  const Program& program_;
  const int pipeline_rank_;
  // What the list has a Send for; all else stays on this rank.
  std::set<Key> sent_;
  std::map<Key, std::vector<Tensor>> outgoing_;
  std::vector<Departure> sends_;
  // What has not been taken yet.
  std::map<Key, Arrival> arrived_;
  // Of each microbatch, by the block that made it.
  std::map<std::pair<Payload, int>, std::map<int64_t, Tensor>> staying_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_EXECUTOR_PIPELINE_MESSAGES_H_
