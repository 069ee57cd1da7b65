#include "runtime/comm/emulated.h"

#include <utility>

namespace trireme {
namespace {

class EmulatedCommunicator final : public Communicator {
 public:
  EmulatedCommunicator(std::unique_ptr<Communicator> inner, Device& payloads)
      : inner_(std::move(inner)), payloads_(payloads) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  std::string_view name() const override { return inner_->name(); }

  Event AllReduce(const Tensor& data, ReduceOp op,
                  std::string_view name) override {
    return inner_->AllReduce(Payload(data), op, name);
  }
  Event ReduceScatter(const Tensor& input, const Tensor& output,
                      std::string_view name) override {
    return inner_->ReduceScatter(Payload(input), Payload(output), name);
  }
  Event AllGather(const Tensor& input, const Tensor& output,
                  std::string_view name) override {
    return inner_->AllGather(Payload(input), Payload(output), name);
  }
  Event AllToAll(const Tensor& input, const Tensor& output,
                 std::string_view name) override {
    return inner_->AllToAll(Payload(input), Payload(output), name);
  }
  Event AllToAllV(const Tensor& input, std::span<const int64_t> send_rows,
                  const Tensor& output, std::span<const int64_t> receive_rows,
                  std::string_view name) override {
    return inner_->AllToAllV(Payload(input), send_rows, Payload(output),
                             receive_rows, name);
  }
  Event Broadcast(const Tensor& data, int root,
                  std::string_view name) override {
    return inner_->Broadcast(Payload(data), root, name);
  }
  Event Send(const Tensor& data, int to, int tag,
             std::string_view name) override {
    return inner_->Send(Payload(data), to, tag, name);
  }
  Event Receive(const Tensor& data, int from, int tag,
                std::string_view name) override {
    return inner_->Receive(Payload(data), from, tag, name);
  }
  void Barrier(std::string_view name) override { inner_->Barrier(name); }
  CommunicationStatistics Statistics() const override {
    return inner_->Statistics();
  }
  void SetActivity(std::string_view activity) override {
    inner_->SetActivity(activity);
  }

 private:
  // As large as `like`, with whatever the memory holds. The inner communicator
  // keeps it until it is done with it.
  Tensor Payload(const Tensor& like) const {
    if (!like.device().dry()) return like;
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
