#include "runtime/comm/collective.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <utility>

#include "fmt/format.h"

namespace trireme {
namespace {

// Bytes that the peers' parts of one segment take in staging. Measured with
// shared memory: 1 MiB is as fast as anything larger and stays in cache.
constexpr int64_t kSegmentBytes = 1 << 20;
// With many ranks a segment's messages must not become tiny.
constexpr int64_t kMinMessageElements = 2048;

// Elements that the local reduction keeps in its accumulators.
constexpr int64_t kReduceBlock = 512;

class HeldStaging final : public Event::Operation {
 public:
  explicit HeldStaging(Tensor staging) : staging_(std::move(staging)) {}
  void Wait() override {}
  bool Test() override { return true; }

 private:
  Tensor staging_;
};

// The type that elements of T are reduced in.
template <typename T>
struct ReduceTypeOf {
  using type = T;
};
template <>
struct ReduceTypeOf<BFloat16> {
  using type = float;
};

template <>
struct ReduceTypeOf<Float16> {
  using type = float;
};

template <typename T>
T Larger(T a, T b) {
  // A NaN on any rank shows on all.
  return b > a || b != b ? b : a;
}

template <typename T>
void ReduceBlockOf(std::span<const void* const> sources, T* out, int64_t begin,
                   int64_t count, ReduceOp op) {
  using Compute = typename ReduceTypeOf<T>::type;
  Compute sum[kReduceBlock];
  const T* first = static_cast<const T*>(sources[0]) + begin;
  for (int64_t i = 0; i < count; ++i) sum[i] = static_cast<Compute>(first[i]);
  for (size_t j = 1; j < sources.size(); ++j) {
    const T* source = static_cast<const T*>(sources[j]) + begin;
    if (op == ReduceOp::kSum) {
      for (int64_t i = 0; i < count; ++i) {
        sum[i] += static_cast<Compute>(source[i]);
      }
    } else {
      for (int64_t i = 0; i < count; ++i) {
        sum[i] = Larger(sum[i], static_cast<Compute>(source[i]));
      }
    }
  }
  for (int64_t i = 0; i < count; ++i) out[begin + i] = static_cast<T>(sum[i]);
}

template <typename T>
void ReduceOf(std::span<const void* const> sources, void* out, int64_t count,
              ReduceOp op) {
  for (int64_t begin = 0; begin < count; begin += kReduceBlock) {
    ReduceBlockOf(sources, static_cast<T*>(out), begin,
                  std::min(kReduceBlock, count - begin), op);
  }
}

void CheckSlices(std::string_view kind, const Tensor& whole,
                 const Tensor& slice, int size, std::string_view name) {
  CHECK(whole.dtype() == slice.dtype())
      << OperationText(kind, name) << ": " << whole.dtype() << " and "
      << slice.dtype();
  CHECK_EQ(whole.num_elements(), slice.num_elements() * size)
      << OperationText(kind, name) << ": " << whole.shape() << " is not "
      << size << " slices of " << slice.shape();
}

}  // namespace

std::string OperationText(std::string_view kind, std::string_view name) {
  return fmt::format("{} '{}'", kind, name);
}

std::string RanksText(std::span<const int> ranks) {
  if (ranks.size() > 2 &&
      ranks.back() - ranks.front() == static_cast<int>(ranks.size()) - 1 &&
      std::is_sorted(ranks.begin(), ranks.end())) {
    return fmt::format("{}-{}", ranks.front(), ranks.back());
  }
  std::string text;
  for (int rank : ranks) {
    text += fmt::format("{}{}", text.empty() ? "" : ", ", rank);
  }
  return text;
}

int RankInGroup(int world_rank, std::span<const int> ranks,
                std::string_view name) {
  const auto self = std::find(ranks.begin(), ranks.end(), world_rank);
  CHECK(self != ranks.end()) << "rank " << world_rank << " is not in '" << name
                             << "' of ranks " << RanksText(ranks);
  return static_cast<int>(self - ranks.begin());
}

void CheckReduceScatter(const Tensor& input, const Tensor& output, int size,
                        std::string_view name) {
  CheckSlices("reduce-scatter", input, output, size, name);
}

void CheckAllGather(const Tensor& input, const Tensor& output, int size,
                    std::string_view name) {
  CheckSlices("all-gather", output, input, size, name);
}

void CheckAllToAll(const Tensor& input, const Tensor& output, int size,
                   std::string_view name) {
  CheckSlices("all-to-all", input, output, 1, name);
  CHECK_EQ(input.num_elements() % size, 0)
      << OperationText("all-to-all", name) << ": " << input.shape()
      << " has no " << size << " equal slices";
}

void CheckAllToAllV(const Tensor& input, std::span<const int64_t> send_rows,
                    const Tensor& output, std::span<const int64_t> receive_rows,
                    int size, std::string_view name) {
  const std::string text = OperationText("all-to-all-v", name);
  const auto rows_of = [&](std::span<const int64_t> rows) {
    CHECK_EQ(rows.size(), static_cast<size_t>(size)) << text;
    int64_t sum = 0;
    for (int64_t count : rows) {
      CHECK_GE(count, 0) << text;
      sum += count;
    }
    return sum;
  };
  CHECK(input.dtype() == output.dtype()) << text;
  CHECK_EQ(input.shape().elements_after(0), output.shape().elements_after(0))
      << text << ": rows of " << input.shape() << " and " << output.shape();
  CHECK_EQ(rows_of(send_rows), input.dim(0)) << text;
  CHECK_EQ(rows_of(receive_rows), output.dim(0)) << text;
}

void CheckPeer(int peer, int rank, int size, std::string_view name) {
  CHECK(peer >= 0 && peer < size && peer != rank)
      << "message '" << name << "' between rank " << rank << " and rank "
      << peer << " in a group of " << size;
}

int64_t AllReduceSentBytes(int64_t full_bytes, int size) {
  return 2 * full_bytes * (size - 1) / size;
}

int64_t SlicesSentBytes(int64_t full_bytes, int size) {
  return full_bytes * (size - 1) / size;
}

ReductionSegments ReductionSegments::Of(int64_t elements, DType dtype,
                                        int size) {
  ReductionSegments segments;
  segments.elements = elements;
  segments.owned = (elements + size - 1) / size;
  const int64_t longest =
      std::max(kMinMessageElements,
               kSegmentBytes / (DTypeSize(dtype) * std::max(1, size - 1)));
  segments.length = std::min(segments.owned, longest);
  if (segments.length > 0) {
    segments.count = (segments.owned + segments.length - 1) / segments.length;
  }
  segments.slots = static_cast<int>(std::min<int64_t>(kSlots, segments.count));
  return segments;
}

ReductionSegments::Range ReductionSegments::RangeOf(int64_t segment,
                                                    int rank) const {
  const int64_t part_begin = std::min(elements, rank * owned);
  const int64_t part_end = std::min(elements, part_begin + owned);
  const int64_t begin = std::min(part_end, part_begin + segment * length);
  return {begin, std::min(part_end, begin + length)};
}

Tensor ReductionSegments::MakeStaging(const Tensor& data, int size) const {
  return Tensor::Empty(data.device(), {slots, size - 1, length}, data.dtype(),
                       MemoryCategory::kCommunication, "reduction staging");
}

void Reduce(std::span<const void* const> sources, void* out, int64_t count,
            DType dtype, ReduceOp op) {
  switch (dtype) {
    case DType::kFloat32:
      return ReduceOf<float>(sources, out, count, op);
    case DType::kBFloat16:
      return ReduceOf<BFloat16>(sources, out, count, op);
    case DType::kFloat16:
      return ReduceOf<Float16>(sources, out, count, op);
    case DType::kFloat64:
      return ReduceOf<double>(sources, out, count, op);
    case DType::kInt32:
      return ReduceOf<int32_t>(sources, out, count, op);
    case DType::kInt64:
      return ReduceOf<int64_t>(sources, out, count, op);
    case DType::kUint8:
      return ReduceOf<uint8_t>(sources, out, count, op);
    case DType::kBool:
      break;
  }
  LOG(FATAL) << "no reduction of " << dtype;
}

CommunicationStatistics TrafficCounter::Get() const {
  return {.calls = calls_.load(std::memory_order_relaxed),
          .sent_bytes = sent_bytes_.load(std::memory_order_relaxed),
          .exposed_seconds = 1e-9 * static_cast<double>(exposed_ns_.load(
                                        std::memory_order_relaxed))};
}

Event DryEvent(Tensor staging) {
  if (!staging.defined()) return Event();
  return Event(std::make_shared<HeldStaging>(std::move(staging)));
}

}  // namespace trireme
