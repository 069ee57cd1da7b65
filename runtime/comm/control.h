// Collectives on plain values of the host: what ranks agree on, such as losses,
// verdicts, metrics and lists, as opposed to what they compute with. No device
// of the caller's takes part, so that they also work where one is out of memory
// or is none that the host can read.
//
// As a communicator's, the calls are collective and come in the same order on
// all ranks; `name` is what a hang is reported by. They return when done. One
// thread at a time.

#ifndef TRIREME_RUNTIME_COMM_CONTROL_H_
#define TRIREME_RUNTIME_COMM_CONTROL_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/cpu_device.h"

namespace trireme {

class Control {
 public:
  // Over the ranks of `group`, which outlives it.
  explicit Control(Communicator& group);

  int rank() const { return group_.rank(); }
  int size() const { return group_.size(); }

  // Elementwise over the ranks, in place; sums in rank order.
  void Sum(std::span<double> values, std::string_view name);
  void Max(std::span<double> values, std::string_view name);
  void Max(std::span<int64_t> values, std::string_view name);
  // Both at once, in the time of one.
  void SumAndMax(std::span<double> sums, std::span<double> maxima,
                 std::string_view name);
  // `values` are the sums after the event's Wait, and stay where they are until
  // then.
  Event StartSum(std::span<double> values, std::string_view name);

  // Rank 0's text on every rank.
  void Broadcast(std::string& text, std::string_view name);
  // The texts of all ranks: on rank 0, empty elsewhere; or on every rank.
  std::vector<std::string> Gather(const std::string& own,
                                  std::string_view name);
  std::vector<std::string> AllGather(const std::string& own,
                                     std::string_view name);

  // OK where all ranks are. Otherwise an error on every rank, with the name of
  // the rank that met it: its own, or where it has none that of the first rank
  // that has one.
  absl::Status Agree(const absl::Status& own, std::string_view name);

 private:
  template <typename T>
  Event StartReduce(std::span<T> values, ReduceOp op, std::string_view name);
  std::vector<int64_t> AllLengths(const std::string& own,
                                  std::string_view name);
  Tensor Bytes(int64_t count, std::string_view name);

  Communicator& group_;
  const std::unique_ptr<CpuDevice> host_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_CONTROL_H_
