// A tensor that a collective in flight is making.

#ifndef TRIREME_RUNTIME_COMM_PENDING_TENSOR_H_
#define TRIREME_RUNTIME_COMM_PENDING_TENSOR_H_

#include <functional>
#include <utility>

#include "runtime/comm/communicator.h"
#include "runtime/device/tensor.h"

namespace trireme {

class PendingTensor {
 public:
  PendingTensor() = default;
  // One that is there already.
  explicit PendingTensor(Tensor tensor) : tensor_(std::move(tensor)) {}
  // `tensor` when `event` is done.
  PendingTensor(Tensor tensor, Event event)
      : tensor_(std::move(tensor)), event_(std::move(event)) {}
  // What `finish` makes when `event` is done.
  PendingTensor(Event event, std::function<Tensor()> finish)
      : event_(std::move(event)), finish_(std::move(finish)) {}

  // Blocks until it is there. Once.
  Tensor Wait() {
    event_.Wait();
    if (finish_) tensor_ = std::exchange(finish_, nullptr)();
    return std::move(tensor_);
  }

 private:
  Tensor tensor_;
  Event event_;
  std::function<Tensor()> finish_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_PENDING_TENSOR_H_
