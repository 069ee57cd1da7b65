#include "runtime/comm/single.h"

#include "runtime/comm/collective.h"
#include "runtime/core/log.h"

namespace trireme {

Event SingleCommunicator::Start(Operation operation) {
  const Tensor& output = operation.output;
  if (output.defined() && output.raw_data() != operation.input.raw_data()) {
    output.CopyFrom(operation.input);
  }
  return Event();
}

std::unique_ptr<Communicator> SingleWorld::Create(std::span<const int> ranks,
                                                  std::string_view name,
                                                  Progress) {
  CHECK(ranks.size() == 1 && ranks[0] == 0)
      << "'" << name << "' of ranks " << RanksText(ranks)
      << " in a world of one";
  return std::make_unique<SingleCommunicator>(name);
}

}  // namespace trireme
