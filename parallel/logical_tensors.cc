#include "parallel/logical_tensors.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/core/status.h"
#include "runtime/ops/copy.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

// Tags of the description's length and text; parts follow.
constexpr int kLengthTag = 0;
constexpr int kTextTag = 1;
constexpr int kFirstPartTag = 2;

bool Sends(const TensorPart& part, const ProcessGrid& grid) {
  if (grid.coordinate(Axis::kData) >= part.data_shards) return false;
  for (const Axis axis : {Axis::kTensor, Axis::kContext, Axis::kExpert}) {
    bool sharded = false;
    for (const ShardedDim& shard : part.shards) {
      sharded = sharded || shard.axis == axis;
    }
    if (!sharded && grid.coordinate(axis) != 0) return false;
  }
  return true;
}

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

// Copies between the logical tensor and `local`, which holds elements [begin,
// end) of a shard of it.
void CopyShard(const Tensor& whole, const Tensor& local,
               const std::vector<ShardedDim>& shards, int64_t begin,
               int64_t end, bool into_whole) {
  std::vector<ElementRun> runs;
  ForEachLocalRun(whole.shape(), shards,
                  [&](int64_t local_at, int64_t global_at, int64_t count) {
                    const int64_t first = std::max(local_at, begin);
                    const int64_t last = std::min(local_at + count, end);
                    if (first >= last) return;
                    const int64_t in_whole = global_at + first - local_at;
                    const int64_t in_local = first - begin;
                    runs.push_back({.from = into_whole ? in_local : in_whole,
                                    .to = into_whole ? in_whole : in_local,
                                    .count = last - first});
                  });
  CopyRuns(runs, into_whole ? local : whole, into_whole ? whole : local);
}

}  // namespace

void CopyPart(const Tensor& whole, const TensorPart& part) {
  CHECK(whole.dtype() == part.local.dtype());
  CHECK_EQ(whole.shape(), part.global_shape);
  CopyShard(whole, part.local, part.shards, part.begin, part.end,
            /*into_whole=*/false);
}

absl::StatusOr<LogicalGather> LogicalGather::Create(
    ParallelContext& context, std::vector<TensorPart> parts) {
  std::erase_if(parts, [&](const TensorPart& part) {
    return !Sends(part, context.grid());
  });
  LogicalGather gather(context, std::move(parts));
  Communicator& world = context.communicators().world();
  Device& device = context.device();
  const std::string own = Describe(gather.parts_);
  absl::Status status;
  if (world.rank() == 0) {
    status = gather.AddRemote(0, own);
    for (int rank = 1; rank < world.size(); ++rank) {
      const Tensor length = Tensor::Zeros(device, {1}, DType::kInt64,
                                          MemoryCategory::kCommunication);
      world.Receive(length, rank, kLengthTag, "tensor list length").Wait();
      const Tensor text =
          Tensor::Empty(device, {*length.data<int64_t>()}, DType::kUint8,
                        MemoryCategory::kCommunication, "tensor list");
      world.Receive(text, rank, kTextTag, "tensor list").Wait();
      const std::vector<uint8_t> bytes = text.ToVector<uint8_t>();
      if (status.ok()) {
        status =
            gather.AddRemote(rank, std::string(bytes.begin(), bytes.end()));
      }
    }
  } else {
    const int64_t size = static_cast<int64_t>(own.size());
    world
        .Send(Tensor::FromValues<int64_t>(device, {1},
                                          std::span<const int64_t>(&size, 1),
                                          MemoryCategory::kCommunication),
              0, kLengthTag, "tensor list length")
        .Wait();
    const std::vector<uint8_t> bytes(own.begin(), own.end());
    world
        .Send(Tensor::FromValues<uint8_t>(device, {size}, bytes,
                                          MemoryCategory::kCommunication),
              0, kTextTag, "tensor list")
        .Wait();
  }
  const int32_t failed = status.ok() ? 0 : 1;
  const Tensor verdict = Tensor::FromValues<int32_t>(
      device, {1}, std::span<const int32_t>(&failed, 1),
      MemoryCategory::kCommunication);
  world.Broadcast(verdict, 0, "tensor list verdict").Wait();
  if (*verdict.data<int32_t>() != 0) {
    return world.rank() == 0
               ? status
               : FailedPrecondition("rank 0 refused the ranks' tensors");
  }
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
    LogicalTensorInfo info;
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

void LogicalGather::Reorder(const std::vector<std::string>& names) {
  CHECK_EQ(names.size(), tensors_.size());
  std::map<std::string, LogicalTensorInfo> by_name;
  for (LogicalTensorInfo& info : tensors_) by_name[info.name] = info;
  for (size_t i = 0; i < names.size(); ++i) tensors_[i] = by_name.at(names[i]);
}

void LogicalGather::Run(
    const std::function<void(const LogicalTensorInfo&, const Tensor&)>& visit) {
  Communicator& world = context_->communicators().world();
  if (world.rank() != 0) {
    std::vector<Event> sends;
    int index = 0;
    for (const TensorPart& part : parts_) {
      sends.push_back(
          world.Send(part.local, 0, kFirstPartTag + index++, part.name));
    }
    for (Event& send : sends) send.Wait();
    return;
  }
  for (const LogicalTensorInfo& info : tensors_) {
    const Tensor whole =
        Tensor::Empty(context_->device(), info.shape, info.dtype,
                      MemoryCategory::kCommunication, "gathered tensor");
    for (const RemotePart& source : sources_.at(info.name)) {
      Tensor local;
      if (source.rank == 0) {
        local = parts_[source.index].local;
      } else {
        local = Tensor::Empty(context_->device(), {source.end - source.begin},
                              info.dtype, MemoryCategory::kCommunication,
                              "gathered part");
        world
            .Receive(local, source.rank, kFirstPartTag + source.index,
                     info.name)
            .Wait();
      }
      CopyShard(whole, local, source.shards, source.begin, source.end,
                /*into_whole=*/true);
    }
    visit(info, whole);
  }
}

}  // namespace trireme
