#include "runtime/comm/nccl/nccl_communicator.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "runtime/comm/collective.h"
#include "runtime/comm/control.h"
#include "runtime/comm/nccl/rank_order_sum.h"
#include "runtime/core/log.h"
#include "runtime/device/cuda/cuda_status.h"
#include "runtime/device/device.h"

namespace trireme {
namespace {

using Kind = Operation::Kind;

// What the peers' parts of one segment take: large enough for the links between
// GPUs, small beside their memory.
constexpr int64_t kStagingBytes = int64_t{16} << 20;
// Works whose events nobody waited for; beyond, the GPU is asked.
constexpr size_t kMostPending = 16;

// After the first error a communicator is of no more use: like a failed CHECK
// it ends the process, with NCCL's words.
void CheckNccl(ncclResult_t result, std::string_view what) {
  CHECK(result == ncclSuccess)
      << "NCCL: " << what << ": " << ncclGetErrorString(result);
}

ncclDataType_t TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
      return ncclBfloat16;
    case DType::kFloat16:
      return ncclFloat16;
    case DType::kFloat32:
      return ncclFloat32;
    case DType::kFloat64:
      return ncclFloat64;
    case DType::kInt32:
      return ncclInt32;
    case DType::kInt64:
      return ncclInt64;
    default:
      CHECK(dtype == DType::kUint8) << "sums of " << dtype;
      return ncclUint8;
  }
}

char* Bytes(const Tensor& tensor) {
  return static_cast<char*>(tensor.raw_data());
}

}  // namespace

// Keeps the tensors until a stream that frees them comes after it.
class NcclCommunicator::Work final : public Event::Work {
 public:
  Work(Event done, const Operation& operation)
      : done_(std::move(done)),
        device_(operation.data().device()),
        input_(operation.input),
        output_(operation.output) {}

  void Wait() override { Event(done_).Synchronize(); }
  bool Test() override { return done_.Test(); }
  bool OrderBefore(Stream& stream) override {
    Event(done_).Wait(stream);
    // What is freed from now on goes to what this stream makes.
    if (&stream == &device_.stream()) Release();
    return true;
  }

  void Release() { input_ = output_ = Tensor(); }
  bool released() const { return !input_.defined() && !output_.defined(); }

 private:
  Event done_;
  Device& device_;
  Tensor input_, output_;
};

NcclCommunicator::NcclCommunicator(std::unique_ptr<Communicator> others,
                                   std::span<const int> ranks, NcclWatch* watch)
    : Communicator(others->rank(), others->size(), others->name()),
      others_(std::move(others)),
      ranks_(ranks.begin(), ranks.end()),
      watch_(watch) {
  std::optional<WaitRegistry::Wait> wait;
  if (watch_ != nullptr) {
    id_ = watch_->registry().AddCommunicator(name(), ranks_);
    // The first of its collectives.
    const auto note = std::make_shared<const OperationNote>(
        OperationNote{.text = "creation by NCCL",
                      .communicator = id_,
                      .sequence = next_sequence_++});
    watch_->registry().Started(note);
    wait.emplace(watch_->registry(), note, watch_->deadline());
  }
  ncclUniqueId id{};
  if (rank() == 0) CheckNccl(ncclGetUniqueId(&id), name());
  std::string text(id.internal, sizeof(id.internal));
  Control(*others_).Broadcast(text, "NCCL's id");
  CHECK_EQ(text.size(), sizeof(id.internal));
  std::memcpy(id.internal, text.data(), sizeof(id.internal));
  CheckNccl(ncclCommInitRank(&communicator_, size(), id, rank()), name());
  Connect();
  if (watch_ == nullptr) return;
  line_ = &watch_->NewLine([this]() -> std::string {
    ncclResult_t error = ncclSuccess;
    CheckNccl(ncclCommGetAsyncError(communicator_, &error), name());
    if (error == ncclSuccess || error == ncclInProgress) return "";
    return fmt::format("NCCL: '{}': {}", name(), ncclGetErrorString(error));
  });
}

NcclCommunicator::~NcclCommunicator() {
  AwaitLaunched();
  if (staging_ != nullptr) {
    CheckCuda(cudaFreeAsync(staging_, stream_.handle()));
  }
  stream_.Synchronize();
  pending_.clear();
  if (watch_ != nullptr) {
    watch_->Remove(*line_);
    watch_->registry().RemoveCommunicator(id_);
  }
  CheckNccl(ncclCommDestroy(communicator_), name());
}

void NcclCommunicator::Connect() {
  char* const bytes = Staging(2 * size());
  CheckNccl(ncclGroupStart(), name());
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    Send(bytes + peer, 1, peer);
    Receive(bytes + size() + peer, 1, peer);
  }
  CheckNccl(ncclGroupEnd(), name());
  CheckNccl(ncclAllGather(bytes, bytes + size(), 1, ncclUint8, communicator_,
                          stream_.handle()),
            name());
  CheckNccl(ncclBroadcast(bytes, bytes, 1, ncclUint8, /*root=*/0, communicator_,
                          stream_.handle()),
            name());
  stream_.Synchronize();
}

Event NcclCommunicator::Start(Operation operation) {
  if (operation.kind == Kind::kBarrier || operation.message() ||
      operation.dry() || operation.data().device().on_host()) {
    return others_->Run(std::move(operation));
  }
  std::erase_if(pending_, [&](const std::shared_ptr<Work>& work) {
    return work->released() || (pending_.size() > kMostPending && work->Test());
  });
  operation.data().device().stream().Record().Wait(stream_);
  Event begun = stream_.Record();
  Launch(operation);
  Event done = stream_.Record();
  if (watch_ != nullptr) {
    auto note = std::make_shared<const OperationNote>(
        NoteOf(operation, id_, ranks_, next_sequence_++));
    watch_->registry().Started(note);
    line_->Add(std::move(note), std::move(begun), done);
  }
  pending_.push_back(std::make_shared<Work>(std::move(done), operation));
  return Event(pending_.back());
}

void NcclCommunicator::Launch(const Operation& operation) {
  const Tensor& input = operation.input;
  if (operation.data().num_elements() == 0 &&
      operation.kind != Kind::kAllToAllV) {
    return;
  }
  switch (operation.kind) {
    case Kind::kAllReduce:
    case Kind::kReduceScatter:
      return operation.order == ReduceOrder::kFast ? ReduceByNccl(operation)
                                                   : Reduce(operation);
    case Kind::kAllGather:
      return CheckNccl(
          ncclAllGather(input.raw_data(), operation.output.raw_data(),
                        static_cast<size_t>(input.bytes()), ncclUint8,
                        communicator_, stream_.handle()),
          operation.name);
    case Kind::kAllToAll:
    case Kind::kAllToAllV:
      return Exchange(operation);
    case Kind::kBroadcast:
      return CheckNccl(
          ncclBroadcast(input.raw_data(), input.raw_data(),
                        static_cast<size_t>(input.bytes()), ncclUint8,
                        operation.root, communicator_, stream_.handle()),
          operation.name);
    default:
      LOG(FATAL) << OperationText(operation);
  }
}

void NcclCommunicator::Reduce(const Operation& operation) {
  const Tensor& input = operation.input;
  const DType dtype = input.dtype();
  const int64_t element_bytes = DTypeSize(dtype);
  const auto segments =
      ReductionSegments::Of(input.num_elements(), dtype, size(), kStagingBytes);
  const int64_t row_bytes = segments.length * element_bytes;
  char* const staging = Staging((size() - 1) * row_bytes);
  const auto at = [&](int64_t element) {
    return Bytes(input) + element * element_bytes;
  };
  const auto for_peers = [&](auto&& visit) {
    CheckNccl(ncclGroupStart(), operation.name);
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != rank()) visit(peer);
    }
    CheckNccl(ncclGroupEnd(), operation.name);
  };
  for (int64_t k = 0; k < segments.count; ++k) {
    const auto own = segments.RangeOf(k, rank());
    for_peers([&](int peer) {
      const auto range = segments.RangeOf(k, peer);
      Send(at(range.begin), range.size() * element_bytes, peer);
      const int row = peer < rank() ? peer : peer - 1;
      Receive(staging + row * row_bytes, own.size() * element_bytes, peer);
    });
    const bool gathers = operation.kind == Kind::kAllReduce;
    void* const out =
        gathers ? at(own.begin) : Bytes(operation.output) + k * row_bytes;
    ReduceRankParts(stream_, dtype, operation.reduce,
                    {.size = size(),
                     .rank = rank(),
                     .own = at(own.begin),
                     .others = staging,
                     .stride = segments.length},
                    own.size(), out);
    if (!gathers) continue;
    for_peers([&](int peer) {
      const auto range = segments.RangeOf(k, peer);
      Send(out, own.size() * element_bytes, peer);
      Receive(at(range.begin), range.size() * element_bytes, peer);
    });
  }
}

void NcclCommunicator::ReduceByNccl(const Operation& operation) {
  const Tensor& input = operation.input;
  const ncclDataType_t type = TypeOf(input.dtype());
  if (operation.kind == Kind::kReduceScatter) {
    return CheckNccl(
        ncclReduceScatter(input.raw_data(), operation.output.raw_data(),
                          static_cast<size_t>(operation.output.num_elements()),
                          type, ncclSum, communicator_, stream_.handle()),
        operation.name);
  }
  CheckNccl(
      ncclAllReduce(input.raw_data(), input.raw_data(),
                    static_cast<size_t>(input.num_elements()), type,
                    operation.reduce == ReduceOp::kMax ? ncclMax : ncclSum,
                    communicator_, stream_.handle()),
      operation.name);
}

void NcclCommunicator::Exchange(const Operation& operation) {
  const Tensor& input = operation.input;
  const int64_t row_bytes =
      input.shape().elements_after(0) * DTypeSize(input.dtype());
  const auto bytes_of = [&](std::span<const int64_t> rows, int peer) {
    return rows.empty() ? input.bytes() / size() : rows[peer] * row_bytes;
  };
  const char* from = Bytes(input);
  char* to = Bytes(operation.output);
  CheckNccl(ncclGroupStart(), operation.name);
  for (int peer = 0; peer < size(); ++peer) {
    const int64_t sent = bytes_of(operation.send_rows, peer);
    const int64_t received = bytes_of(operation.receive_rows, peer);
    if (peer == rank()) {
      CHECK_EQ(sent, received) << OperationText(operation);
      if (sent > 0) stream_.CopyBytes(to, from, sent);
    } else {
      Send(from, sent, peer);
      Receive(to, received, peer);
    }
    from += sent;
    to += received;
  }
  CheckNccl(ncclGroupEnd(), operation.name);
}

void NcclCommunicator::Send(const void* from, int64_t bytes, int peer) {
  if (bytes == 0) return;
  CheckNccl(ncclSend(from, static_cast<size_t>(bytes), ncclUint8, peer,
                     communicator_, stream_.handle()),
            name());
}

void NcclCommunicator::Receive(void* to, int64_t bytes, int peer) {
  if (bytes == 0) return;
  CheckNccl(ncclRecv(to, static_cast<size_t>(bytes), ncclUint8, peer,
                     communicator_, stream_.handle()),
            name());
}

char* NcclCommunicator::Staging(int64_t bytes) {
  if (bytes > staging_bytes_) {
    // In the stream's order: cudaFree would have the host wait for whatever the
    // GPU does, which may wait for ranks that wait for this one.
    if (staging_ != nullptr) {
      CheckCuda(cudaFreeAsync(staging_, stream_.handle()));
    }
    CheckCuda(cudaMallocAsync(&staging_, static_cast<size_t>(bytes),
                              stream_.handle()),
              "for NCCL's reductions");
    staging_bytes_ = bytes;
  }
  return static_cast<char*>(staging_);
}

}  // namespace trireme
