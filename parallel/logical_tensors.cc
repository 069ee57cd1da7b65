#include "parallel/logical_tensors.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

// Of a part's message, before its index; Control's have others.
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

// `local` holds elements [begin, end) of the shard.
void CopyRuns(const Tensor& whole, const Tensor& local,
              const std::vector<ShardedDim>& shards, int64_t begin, int64_t end,
              bool into_whole) {
  if (whole.device().dry() || local.device().dry()) return;
  const int64_t size = DTypeSize(whole.dtype());
  char* whole_data = static_cast<char*>(whole.raw_data());
  char* local_data = static_cast<char*>(local.raw_data());
  ForEachLocalRun(whole.shape(), shards,
                  [&](int64_t local_at, int64_t global_at, int64_t count) {
                    const int64_t first = std::max(local_at, begin);
                    const int64_t last = std::min(local_at + count, end);
                    if (first >= last) return;
                    char* a = local_data + (first - begin) * size;
                    char* b =
                        whole_data + (global_at + first - local_at) * size;
                    std::memcpy(into_whole ? b : a, into_whole ? a : b,
                                (last - first) * size);
                  });
}

}  // namespace

void CopyPart(const Tensor& whole, const TensorPart& part) {
  CHECK(whole.dtype() == part.local.dtype());
  CHECK_EQ(whole.shape(), part.global_shape);
  CopyRuns(whole, part.local, part.shards, part.begin, part.end,
           /*into_whole=*/false);
}

absl::StatusOr<LogicalGather> LogicalGather::Create(
    ParallelContext& context, std::vector<TensorPart> parts) {
  std::erase_if(parts, [&](const TensorPart& part) {
    return !Sends(part, context.grid());
  });
  LogicalGather gather(context, std::move(parts));
  Control& control = context.communicators().control();
  const std::vector<std::string> lists =
      control.Gather(Describe(gather.parts_), "tensor lists");
  absl::Status status;
  for (size_t rank = 0; rank < lists.size() && status.ok(); ++rank) {
    status = gather.AddRemote(static_cast<int>(rank), lists[rank]);
  }
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
      CopyRuns(whole, local, source.shards, source.begin, source.end,
               /*into_whole=*/true);
    }
    visit(info, whole);
  }
}

}  // namespace trireme
