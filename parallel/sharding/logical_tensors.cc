#include "parallel/sharding/logical_tensors.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "parallel/grid/shard_copies.h"
#include "runtime/checkpoint/tensor_bytes.h"
#include "runtime/comm/patience.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/copy.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

// Of a part's message, before its index; Control's have others.
constexpr int kFirstPartTag = 2;

std::string Describe(const std::vector<TensorPart>& parts) {
  Json list = Json::array();
  for (const TensorPart& part : parts) {
    Json shards = Json::array();
    for (const ShardedDim& shard : part.shards) {
      shards.push_back(
          {static_cast<int>(shard.axis), shard.dim, shard.parts, shard.index});
    }
    std::vector<int64_t> shape(part.global_shape.dims().begin(),
                               part.global_shape.dims().end());
    list.push_back({{"name", part.name},
                    {"shape", shape},
                    {"dtype", static_cast<int>(part.local.dtype())},
                    {"begin", part.begin},
                    {"end", part.end},
                    {"data_shards", part.data_shards},
                    {"shards", shards}});
  }
  return list.dump();
}

// Elements [begin, end) of a whole tensor or of a shard, row-major.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
};

// Calls visit(local, global, count) for each run of elements that lies in
// `local` of the shard and in `global` of the whole; both count from the
// begin of their range.
template <typename Visit>
void ForEachRun(const Shape& shape, const std::vector<ShardedDim>& shards,
                Range local, Range global, Visit visit) {
  ForEachLocalRun(
      shape, shards, [&](int64_t local_at, int64_t global_at, int64_t count) {
        const int64_t shift = global_at - local_at;
        const int64_t first =
            std::max({local_at, local.begin, global.begin - shift});
        const int64_t last =
            std::min({local_at + count, local.end, global.end - shift});
        if (first >= last) return;
        visit(first - local.begin, first + shift - global.begin, last - first);
      });
}

// The elements of `local`, counted from its begin, that lie in `global`: they
// are neighbours in the shard, too.
Range Within(const Shape& shape, const std::vector<ShardedDim>& shards,
             Range local, Range global) {
  Range range;
  ForEachRun(shape, shards, local, global,
             [&](int64_t at, int64_t /*global*/, int64_t count) {
               if (range.end == 0) range.begin = at;
               range.end = at + count;
             });
  return range;
}

constexpr int64_t kPieceBytes = 4 << 20;

// Calls visit(range) for the pieces of a tensor, in order.
template <typename Visit>
void ForEachPiece(const Shape& shape, DType dtype, Visit visit) {
  const int64_t elements = kPieceBytes / DTypeSize(dtype);
  for (int64_t begin = 0; begin < shape.num_elements(); begin += elements) {
    visit(Range{begin, std::min(begin + elements, shape.num_elements())});
  }
}

SafetensorsEntry EntryOf(const TensorPart& part) {
  return {part.name, part.local.dtype(), part.global_shape};
}

}  // namespace

absl::StatusOr<LogicalGather> LogicalGather::Create(
    ParallelContext& context, std::vector<TensorPart> parts) {
  std::erase_if(parts, [&](const TensorPart& part) {
    return !IsFirstCopy(part.shards, context.grid(), part.data_shards);
  });
  std::sort(parts.begin(), parts.end(),
            [](const TensorPart& a, const TensorPart& b) {
              return ComesBefore(EntryOf(a), EntryOf(b));
            });
  LogicalGather gather(context, std::move(parts));
  Control& control = context.communicators().control();
  const std::vector<std::string> lists =
      control.Gather(Describe(gather.parts_), "tensor lists");
  absl::Status status;
  for (size_t rank = 0; rank < lists.size() && status.ok(); ++rank) {
    status = gather.AddRemote(static_cast<int>(rank), lists[rank]);
  }
  if (status.ok()) status = gather.CheckCovered();
  std::sort(gather.tensors_.begin(), gather.tensors_.end(), &ComesBefore);
  RETURN_IF_ERROR(control.Agree(status, "tensor list verdict"));
  return gather;
}

absl::Status LogicalGather::AddRemote(int rank,
                                      const std::string& description) {
  const Json list = Json::parse(description, nullptr, false);
  CHECK(list.is_array()) << "rank " << rank << " sent a broken tensor list";
  int index = 0;
  for (const Json& entry : list) {
    RemotePart part;
    part.rank = rank;
    part.index = index++;
    int parts = entry["data_shards"].get<int>();
    part.begin = entry["begin"].get<int64_t>();
    part.end = entry["end"].get<int64_t>();
    for (const Json& shard : entry["shards"]) {
      part.shards.push_back({static_cast<Axis>(shard[0].get<int>()),
                             shard[1].get<int>(), shard[2].get<int>(),
                             shard[3].get<int>()});
      parts *= part.shards.back().parts;
    }
    SafetensorsEntry info;
    info.name = entry["name"].get<std::string>();
    info.shape = Shape(entry["shape"].get<std::vector<int64_t>>());
    info.dtype = static_cast<DType>(entry["dtype"].get<int>());
    auto& sources = sources_[info.name];
    if (sources.empty()) {
      tensors_.push_back(info);
    }
    sources.push_back(std::move(part));
    if (static_cast<int>(sources.size()) > parts) {
      return FailedPrecondition(
          "tensor '{}': rank {} brings part {} of {}; two stages use one name",
          info.name, rank, sources.size(), parts);
    }
  }
  return absl::OkStatus();
}

absl::Status LogicalGather::CheckCovered() const {
  for (const SafetensorsEntry& tensor : tensors_) {
    int64_t elements = 0;
    for (const RemotePart& part : sources_.at(tensor.name)) {
      elements += part.end - part.begin;
    }
    if (elements != tensor.shape.num_elements()) {
      return FailedPrecondition(
          "tensor '{}': the ranks bring {} elements, expected the {} of {}",
          tensor.name, elements, tensor.shape.num_elements(),
          tensor.shape.ToString());
    }
  }
  return absl::OkStatus();
}

void LogicalGather::SendParts() {
  Communicator& world = context_->communicators().world();
  int tag = kFirstPartTag;
  for (const TensorPart& part : parts_) {
    const Tensor flat = part.local.Reshape({-1});
    ForEachPiece(part.global_shape, part.local.dtype(), [&](Range piece) {
      const Range range =
          Within(part.global_shape, part.shards, {part.begin, part.end}, piece);
      if (range.end == 0) return;
      AwaitPatiently(
          world.Send(flat.Slice(range.begin, range.end), 0, tag, part.name),
          part.name);
    });
    ++tag;
  }
}

void LogicalGather::AssembleParts(const VisitPiece& visit) {
  Communicator& world = context_->communicators().world();
  // It holds two pieces at most, and no other device copies runs to it.
  CpuDevice host(std::numeric_limits<int64_t>::max());
  for (const SafetensorsEntry& tensor : tensors_) {
    ForEachPiece(tensor.shape, tensor.dtype, [&](Range piece) {
      const Tensor assembled = Tensor::Empty(
          host, {piece.end - piece.begin}, tensor.dtype,
          MemoryCategory::kCommunication, "piece of a gathered tensor");
      for (const RemotePart& source : sources_.at(tensor.name)) {
        const Range local = {source.begin, source.end};
        const Range range = Within(tensor.shape, source.shards, local, piece);
        if (range.end == 0) continue;
        const Tensor part =
            Tensor::Empty(host, {range.end - range.begin}, tensor.dtype,
                          MemoryCategory::kCommunication, "gathered part");
        if (source.rank == 0) {
          part.CopyFrom(parts_[source.index].local.Reshape({-1}).Slice(
              range.begin, range.end));
        } else {
          world
              .Receive(part, source.rank, kFirstPartTag + source.index,
                       tensor.name)
              .Wait();
        }
        std::vector<ElementRun> runs;
        ForEachRun(
            tensor.shape, source.shards, local, piece,
            [&](int64_t at, int64_t global, int64_t count) {
              runs.push_back(
                  {.from = at - range.begin, .to = global, .count = count});
            });
        CopyRuns(runs, part, assembled);
      }
      visit(tensor, BytesForFile(assembled));
    });
  }
}

void LogicalGather::RunInPieces(const VisitPiece& visit) {
  if (context_->communicators().world().rank() == 0) {
    AssembleParts(visit);
  } else {
    SendParts();
  }
}

void LogicalGather::Run(const VisitWhole& visit) {
  CpuDevice host(std::numeric_limits<int64_t>::max());
  Tensor whole;
  int64_t done = 0;
  RunInPieces([&](const SafetensorsEntry& tensor,
                  std::span<const std::byte> piece) {
    if (done == 0) {
      whole = Tensor::Empty(host, tensor.shape, tensor.dtype,
                            MemoryCategory::kCommunication, "gathered tensor");
    }
    SetBytesFromFile(whole, done, piece);
    done += static_cast<int64_t>(piece.size());
    if (done < whole.bytes()) return;
    visit(tensor, whole);
    whole = Tensor();
    done = 0;
  });
}

}  // namespace trireme
