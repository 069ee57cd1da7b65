// What tests put between a model and its communicators, to watch or to disturb
// them: a communicator that passes everything on. Tests override what they are
// about.

#ifndef TRIREME_RUNTIME_COMM_FORWARDING_TESTING_H_
#define TRIREME_RUNTIME_COMM_FORWARDING_TESTING_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "runtime/comm/communicator.h"

namespace trireme {

class ForwardingCommunicator : public Communicator {
 public:
  explicit ForwardingCommunicator(std::unique_ptr<Communicator> inner)
      : inner_(std::move(inner)) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  std::string_view name() const override { return inner_->name(); }
  Event AllReduce(const Tensor& data, ReduceOp op,
                  std::string_view name) override {
    return inner_->AllReduce(data, op, name);
  }
  Event ReduceScatter(const Tensor& input, const Tensor& output,
                      std::string_view name) override {
    return inner_->ReduceScatter(input, output, name);
  }
  Event AllGather(const Tensor& input, const Tensor& output,
                  std::string_view name) override {
    return inner_->AllGather(input, output, name);
  }
  Event AllToAll(const Tensor& input, const Tensor& output,
                 std::string_view name) override {
    return inner_->AllToAll(input, output, name);
  }
  Event AllToAllV(const Tensor& input, std::span<const int64_t> send_rows,
                  const Tensor& output, std::span<const int64_t> receive_rows,
                  std::string_view name) override {
    return inner_->AllToAllV(input, send_rows, output, receive_rows, name);
  }
  Event Broadcast(const Tensor& data, int root,
                  std::string_view name) override {
    return inner_->Broadcast(data, root, name);
  }
  Event Send(const Tensor& data, int to, int tag,
             std::string_view name) override {
    return inner_->Send(data, to, tag, name);
  }
  Event Receive(const Tensor& data, int from, int tag,
                std::string_view name) override {
    return inner_->Receive(data, from, tag, name);
  }
  void Barrier(std::string_view name) override { inner_->Barrier(name); }
  CommunicationStatistics Statistics() const override {
    return inner_->Statistics();
  }
  void SetActivity(std::string_view activity) override {
    inner_->SetActivity(activity);
  }

 private:
  const std::unique_ptr<Communicator> inner_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_FORWARDING_TESTING_H_
