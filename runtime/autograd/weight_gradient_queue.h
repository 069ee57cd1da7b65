// The contributions that one microbatch makes to the gradients of parameters:
// run at once, or queued until a zero-bubble schedule wants them. Tapes that
// record parts of one microbatch share a queue, so that it knows when a
// parameter has the last of its contributions.

#ifndef TRIREME_RUNTIME_AUTOGRAD_WEIGHT_GRADIENT_QUEUE_H_
#define TRIREME_RUNTIME_AUTOGRAD_WEIGHT_GRADIENT_QUEUE_H_

#include <functional>
#include <unordered_map>
#include <vector>

#include "runtime/autograd/parameter.h"

namespace trireme {

class WeightGradientQueue {
 public:
  using Callback = std::function<void(Parameter&)>;

  WeightGradientQueue() = default;
  WeightGradientQueue(const WeightGradientQueue&) = delete;
  WeightGradientQueue& operator=(const WeightGradientQueue&) = delete;

  // Called before parameter.grad is added to.
  void set_needed(Callback callback) { needed_ = std::move(callback); }
  // Called once per parameter after the last contribution to it.
  void set_ready(Callback callback) { ready_ = std::move(callback); }

  bool deferred() const { return deferred_; }
  void set_deferred(bool deferred) { deferred_ = deferred; }

  // One more contribution to a trainable parameter will come.
  void Expect(Parameter& parameter) { ++uses_[&parameter]; }
  // How many will, by parameter.
  const std::unordered_map<Parameter*, int>& expected() const { return uses_; }

  // An expected contribution: queues (or runs) `compute`, which adds it to
  // parameter.grad. `prepare`, if given, starts what `compute` then waits for
  // (a collective); of queued ones it runs before the one ahead that has a
  // `prepare` too, so that it goes on behind.
  void Add(Parameter& parameter, std::function<void()> compute,
           std::function<void()> prepare = nullptr);
  // The same of one `compute` that adds to two parameters.
  void AddBoth(Parameter& first, Parameter& second,
               std::function<void()> compute,
               std::function<void()> prepare = nullptr);
  // Queues (or runs) what belongs to the weight gradients without being one.
  void AddWork(std::function<void()> work);

  // Runs what is queued, in order.
  void Run();

 private:
  struct Entry {
    std::vector<Parameter*> parameters;  // none: not a gradient
    std::function<void()> compute;
    std::function<void()> prepare = nullptr;
  };

  void AddEntry(Entry entry);
  void RunEntry(const Entry& entry);

  bool deferred_ = false;
  std::vector<Entry> entries_;
  // Contributions that are still to come.
  std::unordered_map<Parameter*, int> uses_;
  Callback needed_;
  Callback ready_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_WEIGHT_GRADIENT_QUEUE_H_
