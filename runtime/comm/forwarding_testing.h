// What tests put between a model and its communicators, to watch or to disturb
// them: communicators that pass every operation through a function.

#ifndef TRIREME_RUNTIME_COMM_FORWARDING_TESTING_H_
#define TRIREME_RUNTIME_COMM_FORWARDING_TESTING_H_

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "runtime/comm/communicator.h"

namespace trireme {

// Gets each operation instead of the real communicator `inner`, and carries it
// out, changed or not, by inner.Run.
using Interceptor =
    std::function<Event(Communicator& inner, Operation operation)>;

class ForwardingCommunicator final : public Communicator {
 public:
  ForwardingCommunicator(std::unique_ptr<Communicator> inner,
                         Interceptor intercept)
      : Communicator(inner->rank(), inner->size(), inner->name()),
        inner_(std::move(inner)),
        intercept_(std::move(intercept)) {}

  int max_tag() const override { return inner_->max_tag(); }
  void SetActivity(std::string_view activity) override {
    inner_->SetActivity(activity);
  }

 private:
  Event Start(Operation operation) override {
    return intercept_(*inner_, std::move(operation));
  }

  const std::unique_ptr<Communicator> inner_;
  const Interceptor intercept_;
};

// All communicators of `real`, which outlives it, with an interceptor.
class ForwardingWorld final : public CommunicatorFactory {
 public:
  ForwardingWorld(CommunicatorFactory& real, Interceptor intercept)
      : real_(real), intercept_(std::move(intercept)) {}

  int world_rank() const override { return real_.world_rank(); }
  int world_size() const override { return real_.world_size(); }
  bool imagined() const override { return real_.imagined(); }
  using CommunicatorFactory::Create;
  std::unique_ptr<Communicator> Create(std::span<const int> ranks,
                                       std::string_view name,
                                       Progress progress) override {
    return std::make_unique<ForwardingCommunicator>(
        real_.Create(ranks, name, progress), intercept_);
  }

 private:
  CommunicatorFactory& real_;
  const Interceptor intercept_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_FORWARDING_TESTING_H_
