#include "runtime/comm/single.h"

namespace trireme {

Event SingleCommunicator::Copy(const Tensor& input, const Tensor& output) {
  traffic_.CountCall(0);
  const bool same = input.raw_data() == output.raw_data();
  if (!same) output.CopyFrom(input);
  return Event();
}

Event SingleCommunicator::AllReduce(const Tensor&, ReduceOp, std::string_view) {
  traffic_.CountCall(0);
  return Event();
}

Event SingleCommunicator::ReduceScatter(const Tensor& input,
                                        const Tensor& output,
                                        std::string_view name) {
  CheckReduceScatter(input, output, 1, name);
  return Copy(input, output);
}

Event SingleCommunicator::AllGather(const Tensor& input, const Tensor& output,
                                    std::string_view name) {
  CheckAllGather(input, output, 1, name);
  return Copy(input, output);
}

Event SingleCommunicator::AllToAll(const Tensor& input, const Tensor& output,
                                   std::string_view name) {
  CheckAllToAll(input, output, 1, name);
  return Copy(input, output);
}

Event SingleCommunicator::AllToAllV(const Tensor& input,
                                    std::span<const int64_t> send_rows,
                                    const Tensor& output,
                                    std::span<const int64_t> receive_rows,
                                    std::string_view name) {
  CheckAllToAllV(input, send_rows, output, receive_rows, 1, name);
  return Copy(input, output);
}

Event SingleCommunicator::Broadcast(const Tensor&, int root,
                                    std::string_view name) {
  CHECK_EQ(root, 0) << OperationText("broadcast", name);
  traffic_.CountCall(0);
  return Event();
}

Event SingleCommunicator::Send(const Tensor&, int to, int,
                               std::string_view name) {
  CheckPeer(to, 0, 1, name);
  return Event();
}

Event SingleCommunicator::Receive(const Tensor&, int from, int,
                                  std::string_view name) {
  CheckPeer(from, 0, 1, name);
  return Event();
}

void SingleCommunicator::Barrier(std::string_view) { traffic_.CountCall(0); }

std::unique_ptr<Communicator> SingleWorld::Create(std::span<const int> ranks,
                                                  std::string_view name,
                                                  Progress) {
  CHECK(ranks.size() == 1 && ranks[0] == 0)
      << "'" << name << "' of ranks " << RanksText(ranks)
      << " in a world of one";
  return std::make_unique<SingleCommunicator>(name);
}

}  // namespace trireme
