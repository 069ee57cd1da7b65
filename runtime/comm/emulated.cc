#include "runtime/comm/emulated.h"

#include <utility>

namespace trireme {
namespace {

class EmulatedCommunicator final : public Communicator {
 public:
  EmulatedCommunicator(std::unique_ptr<Communicator> inner, Device& payloads)
      : Communicator(inner->rank(), inner->size(), inner->name()),
        inner_(std::move(inner)),
        payloads_(payloads) {}

  int max_tag() const override { return inner_->max_tag(); }
  void SetActivity(std::string_view activity) override {
    inner_->SetActivity(activity);
  }

 private:
  Event Start(Operation operation) override {
    operation.input = Payload(operation.input);
    operation.output =
        operation.in_place() ? operation.input : Payload(operation.output);
    return inner_->Run(std::move(operation));
  }

  // As large as `like`, with whatever the memory holds. The inner communicator
  // keeps it until it is done with it.
  Tensor Payload(const Tensor& like) const {
    if (!like.defined() || !like.device().dry()) return like;
    return Tensor::Empty(payloads_, like.shape(), like.dtype(),
                         MemoryCategory::kCommunication, "payload");
  }

  const std::unique_ptr<Communicator> inner_;
  Device& payloads_;
};

}  // namespace

std::unique_ptr<Communicator> EmulatedWorld::Create(std::span<const int> ranks,
                                                    std::string_view name,
                                                    Progress progress) {
  return std::make_unique<EmulatedCommunicator>(
      inner_.Create(ranks, name, progress), payloads_);
}

}  // namespace trireme
