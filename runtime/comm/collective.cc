#include "runtime/comm/collective.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <utility>

#include "fmt/format.h"

namespace trireme {
namespace {

// With many ranks a segment's messages must not become tiny.
constexpr int64_t kMinMessageElements = 2048;

// Elements that the local reduction keeps in its accumulators.
constexpr int64_t kReduceBlock = 512;

class HeldStaging final : public Event::Work {
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

}  // namespace

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

ReductionSegments ReductionSegments::Of(int64_t elements, DType dtype, int size,
                                        int64_t segment_bytes) {
  ReductionSegments segments;
  segments.elements = elements;
  segments.owned = (elements + size - 1) / size;
  const int64_t longest =
      std::max(kMinMessageElements,
               segment_bytes / (DTypeSize(dtype) * std::max(1, size - 1)));
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

Event DryEvent(const Operation& operation, int size) {
  if (operation.kind != Operation::Kind::kAllReduce &&
      operation.kind != Operation::Kind::kReduceScatter) {
    return Event();
  }
  const Tensor& input = operation.input;
  // Sums of other devices' tensors are staged in the host's memory
  // (host_staged.h).
  if (!input.device().on_host()) return Event();
  return Event(std::make_shared<HeldStaging>(
      ReductionSegments::Of(input.num_elements(), input.dtype(), size)
          .MakeStaging(input, size)));
}

}  // namespace trireme
