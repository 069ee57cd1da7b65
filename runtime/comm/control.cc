#include "runtime/comm/control.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int kTextTag = 0;

void CopyIn(std::string_view text, const Tensor& tensor) {
  if (!text.empty()) std::memcpy(tensor.raw_data(), text.data(), text.size());
}

std::string TextOf(const Tensor& tensor, int64_t size) {
  return {static_cast<const char*>(tensor.raw_data()),
          static_cast<size_t>(size)};
}

// A reduction whose results go back to where its values came from.
class ReducedValues final : public Event::Work {
 public:
  ReducedValues(Event reduction, Tensor staged, void* values)
      : reduction_(std::move(reduction)),
        staged_(std::move(staged)),
        values_(values) {}

  void Wait() override {
    reduction_.Synchronize();
    std::memcpy(values_, staged_.raw_data(), staged_.bytes());
  }
  bool Test() override { return reduction_.Test(); }

 private:
  Event reduction_;
  const Tensor staged_;
  void* const values_;
};

}  // namespace

Control::Control(Communicator& group)
    : group_(group),
      host_(std::make_unique<CpuDevice>(std::numeric_limits<int64_t>::max())) {}

Tensor Control::Bytes(int64_t count, std::string_view name) {
  return Tensor::Empty(*host_, {count}, DType::kUint8,
                       MemoryCategory::kCommunication, name);
}

template <typename T>
Event Control::StartReduce(std::span<T> values, ReduceOp op,
                           std::string_view name) {
  if (values.empty()) return Event();
  const Tensor staged =
      Tensor::Empty(*host_, {static_cast<int64_t>(values.size())}, DTypeOf<T>(),
                    MemoryCategory::kCommunication, name);
  std::memcpy(staged.raw_data(), values.data(), values.size_bytes());
  Event reduction = group_.AllReduce(staged, op, name);
  return Event(std::make_shared<ReducedValues>(std::move(reduction), staged,
                                               values.data()));
}

void Control::Sum(std::span<double> values, std::string_view name) {
  StartReduce(values, ReduceOp::kSum, name).Synchronize();
}

void Control::Max(std::span<double> values, std::string_view name) {
  StartReduce(values, ReduceOp::kMax, name).Synchronize();
}

void Control::Max(std::span<int64_t> values, std::string_view name) {
  StartReduce(values, ReduceOp::kMax, name).Synchronize();
}

void Control::SumAndMax(std::span<double> sums, std::span<double> maxima,
                        std::string_view name) {
  Event sum = StartReduce(sums, ReduceOp::kSum, name);
  Event max = StartReduce(maxima, ReduceOp::kMax, name);
  sum.Synchronize();
  max.Synchronize();
}

Event Control::StartSum(std::span<double> values, std::string_view name) {
  return StartReduce(values, ReduceOp::kSum, name);
}

void Control::Broadcast(std::string& text, std::string_view name) {
  const Tensor length = Tensor::Zeros(*host_, {1}, DType::kInt64,
                                      MemoryCategory::kCommunication, name);
  auto* const size = static_cast<int64_t*>(length.raw_data());
  *size = static_cast<int64_t>(text.size());
  group_.Broadcast(length, 0, name).Synchronize();
  const Tensor bytes = Bytes(*size, name);
  if (rank() == 0) CopyIn(text, bytes);
  group_.Broadcast(bytes, 0, name).Synchronize();
  if (rank() != 0) text = TextOf(bytes, *size);
}

std::vector<int64_t> Control::AllLengths(const std::string& own,
                                         std::string_view name) {
  std::vector<int64_t> lengths(size(), 0);
  lengths[rank()] = static_cast<int64_t>(own.size());
  Max(lengths, name);
  return lengths;
}

std::vector<std::string> Control::Gather(const std::string& own,
                                         std::string_view name) {
  const std::vector<int64_t> lengths = AllLengths(own, name);
  if (rank() != 0) {
    const Tensor bytes = Bytes(lengths[rank()], name);
    CopyIn(own, bytes);
    group_.Send(bytes, 0, kTextTag, name).Synchronize();
    return {};
  }
  std::vector<std::string> texts = {own};
  for (int from = 1; from < size(); ++from) {
    const Tensor bytes = Bytes(lengths[from], name);
    group_.Receive(bytes, from, kTextTag, name).Synchronize();
    texts.push_back(TextOf(bytes, lengths[from]));
  }
  return texts;
}

std::vector<std::string> Control::AllGather(const std::string& own,
                                            std::string_view name) {
  const std::vector<int64_t> lengths = AllLengths(own, name);
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  const Tensor mine = Bytes(longest, name);
  CopyIn(own, mine);
  const Tensor all = Bytes(longest * size(), name);
  group_.AllGather(mine, all, name).Synchronize();
  std::vector<std::string> texts;
  for (int from = 0; from < size(); ++from) {
    texts.push_back(
        TextOf(all.Slice(from * longest, (from + 1) * longest), lengths[from]));
  }
  return texts;
}

absl::Status Control::Agree(const absl::Status& own, std::string_view name) {
  int64_t failed = own.ok() ? 0 : 1;
  Max(std::span(&failed, 1), name);
  if (failed == 0) return absl::OkStatus();
  if (size() == 1) return own;
  const std::vector<std::string> messages = AllGather(MessageOf(own), name);
  if (!own.ok()) return WithContext(own, fmt::format("rank {}", rank()));
  // An OK status has no message; a failed one might have an empty one.
  const auto first =
      std::find_if(messages.begin(), messages.end(),
                   [](const std::string& message) { return !message.empty(); });
  return Unavailable("rank {}: {}", first - messages.begin(),
                     first == messages.end() ? "failed" : *first);
}

}  // namespace trireme
