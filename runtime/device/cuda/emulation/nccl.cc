// The parts of NCCL (nccl.h) that Trireme uses, for ranks that are threads of
// one process: each of them sees the emulated GPU as its own. What they give to
// streams meets there, in the order of each stream, and not before somebody
// waits for it. Everything else is missing when a program is linked.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <nccl.h>

#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "runtime/device/cuda/emulation/emulated_gpu.h"
#include "runtime/device/cuda/emulation/refusal.h"

namespace trireme::cuda_emulation {
namespace {

class Call;

// Bytes from one rank to another.
struct Transfer {
  struct End {
    std::string_view function;  // empty: its rank has not called yet
    void* data = nullptr;
    size_t bytes = 0;
    std::weak_ptr<Call> call;
    bool there = false;
  };
  End from, to;
  bool done = false;
};

// What the ranks of a communicator share.
struct Group {
  explicit Group(int ranks) : size(ranks) {}

  // The next transfer of which this end is not known yet.
  std::shared_ptr<Transfer> Next(int from, int to, bool sends) {
    std::deque<std::shared_ptr<Transfer>>& open = transfers[{from, to}];
    for (const auto& transfer : open) {
      if ((sends ? transfer->from : transfer->to).function.empty()) {
        return transfer;
      }
    }
    return open.emplace_back(std::make_shared<Transfer>());
  }
  void Remove(int from, int to, const std::shared_ptr<Transfer>& transfer) {
    std::erase(transfers[{from, to}], transfer);
  }

  const int size;
  int members = 0;  // guarded by the mutex of groups
  // Of which not both ends are known, by their ranks.
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Transfer>>>
      transfers;
};

}  // namespace
}  // namespace trireme::cuda_emulation

// NCCL's handle.
struct ncclComm {
  std::shared_ptr<trireme::cuda_emulation::Group> group;
  int rank;
};

namespace trireme::cuda_emulation {
namespace {

// One rank's part of what is called on one stream, alone or between
// ncclGroupStart and ncclGroupEnd.
class Call final : public Meeting, public std::enable_shared_from_this<Call> {
 public:
  Call(std::shared_ptr<Group> group, int rank)
      : group_(std::move(group)), rank_(rank) {}

  void Send(std::string_view function, const void* data, size_t bytes,
            int peer) {
    parts_.push_back({peer, true, {function, const_cast<void*>(data), bytes}});
  }
  void Receive(std::string_view function, void* data, size_t bytes, int peer) {
    parts_.push_back({peer, false, {function, data, bytes}});
  }

  // Once all parts have been moved.
  void Finish(std::function<void()> finish) { finish_ = std::move(finish); }

  void Place(const Point& before) override {
    before_ = before;
    for (Part& part : parts_) {
      const int from = part.sends ? rank_ : part.peer;
      const int to = part.sends ? part.peer : rank_;
      part.transfer = group_->Next(from, to, part.sends);
      part.end.call = weak_from_this();
      Own(part) = part.end;
      const Transfer& t = *part.transfer;
      if (t.from.function.empty() || t.to.function.empty()) continue;
      group_->Remove(from, to, part.transfer);
      const std::string_view expected =
          t.from.function == "ncclSend" ? "ncclRecv" : t.from.function;
      if (t.to.function != expected) {
        Refuse(fmt::format("{} of rank {} meets {} of rank {}", t.from.function,
                           from, t.to.function, to));
      }
      if (t.from.bytes != t.to.bytes) {
        Refuse(
            fmt::format("{} of rank {}: {} bytes for rank {}, which expects "
                        "{}",
                        t.from.function, from, t.from.bytes, to, t.to.bytes));
      }
    }
  }

  Step Arrive() override {
    bool done = true, moved = false;
    for (Part& part : parts_) {
      Transfer& transfer = *part.transfer;
      Own(part).there = true;
      if (!transfer.done && transfer.from.there && transfer.to.there) {
        std::memmove(transfer.to.data, transfer.from.data, transfer.from.bytes);
        transfer.done = moved = true;
      }
      done = done && transfer.done;
    }
    if (done && finish_) std::exchange(finish_, nullptr)();
    return done ? Step::kDone : moved ? Step::kMoved : Step::kWaits;
  }

  std::vector<Point> Awaited() const override {
    std::vector<Point> points;
    for (const Part& part : parts_) {
      const Transfer::End& other =
          part.sends ? part.transfer->to : part.transfer->from;
      if (part.transfer->done || other.there) continue;
      if (const std::shared_ptr<Call> call = other.call.lock()) {
        points.push_back(call->before_);
      }
    }
    return points;
  }

 private:
  struct Part {
    int peer;
    bool sends;
    Transfer::End end;
    std::shared_ptr<Transfer> transfer = nullptr;
  };

  static Transfer::End& Own(Part& part) {
    return part.sends ? part.transfer->from : part.transfer->to;
  }

  const std::shared_ptr<Group> group_;
  const int rank_;
  std::vector<Part> parts_;
  std::function<void()> finish_;
  Point before_;
};

// Of the thread: what it has called since ncclGroupStart.
struct OpenCalls {
  struct Open {
    ncclComm_t communicator;
    cudaStream_t stream;
    std::shared_ptr<Call> call;
  };
  int depth = 0;
  std::vector<Open> calls;

  Call& Of(ncclComm_t communicator, cudaStream_t stream) {
    for (const Open& open : calls) {
      if (open.communicator != communicator) continue;
      if (open.stream != stream) {
        Refuse("a communicator of NCCL on two streams of one group");
      }
      return *open.call;
    }
    return *calls
                .emplace_back(Open{communicator, stream,
                                   std::make_shared<Call>(communicator->group,
                                                          communicator->rank)})
                .call;
  }
  ncclResult_t Close() {
    if (--depth > 0) return ncclSuccess;
    for (Open& open : std::exchange(calls, {})) {
      Enqueue(open.stream, std::move(open.call));
    }
    return ncclSuccess;
  }
};
thread_local OpenCalls open_calls;

size_t BytesOf(size_t count, ncclDataType_t type) {
  // Trireme sends bytes.
  if (type == ncclUint8) return count;
  Refuse(fmt::format("NCCL's type {}", static_cast<int>(type)));
}

template <typename T>
T Combined(ncclRedOp_t operation, T a, T b) {
  if (operation == ncclMax) return b > a ? b : a;
  if (operation == ncclSum) return static_cast<T>(a + b);
  Refuse(fmt::format("NCCL's operation {}", static_cast<int>(operation)));
}

// Calls f(T{}, combine) with the elements' type.
template <typename F>
void DispatchReduced(ncclDataType_t type, ncclRedOp_t operation, F&& f) {
  const auto plain = [&](auto element) {
    using T = decltype(element);
    f(element, [=](T a, T b) { return Combined(operation, a, b); });
  };
  switch (type) {
    case ncclFloat32:
      return plain(float{});
    case ncclFloat64:
      return plain(double{});
    case ncclInt32:
      return plain(int32_t{});
    case ncclInt64:
      return plain(int64_t{});
    case ncclFloat16:
      return f(__half{}, [=](__half a, __half b) {
        return __float2half_rn(
            Combined(operation, __half2float(a), __half2float(b)));
      });
    case ncclBfloat16:
      return f(__nv_bfloat16{}, [=](__nv_bfloat16 a, __nv_bfloat16 b) {
        return __float2bfloat16_rn(
            Combined(operation, __bfloat162float(a), __bfloat162float(b)));
      });
    default:
      Refuse(
          fmt::format("NCCL's reductions of type {}", static_cast<int>(type)));
  }
}

// `to`[count] = the ranks' elements from `first_of(rank)` on, combined from the
// last rank down, with a rounding at each step.
template <typename FirstOf>
void AddReduction(Call& call, const char* function, const void* from, void* to,
                  size_t count, int size, ncclDataType_t type,
                  ncclRedOp_t operation, FirstOf&& first_of) {
  DispatchReduced(type, operation, [&]<typename T>(T, auto combine) {
    const auto parts = std::make_shared<std::vector<std::vector<T>>>(
        size, std::vector<T>(count));
    for (int peer = 0; peer < size; ++peer) {
      const T* const begin = static_cast<const T*>(from) + first_of(peer);
      call.Send(function, begin, count * sizeof(T), peer);
      call.Receive(function, (*parts)[peer].data(), count * sizeof(T), peer);
    }
    call.Finish([parts, combine, to, count, size] {
      for (size_t i = 0; i < count; ++i) {
        T value = (*parts)[size - 1][i];
        for (int rank = size - 2; rank >= 0; --rank) {
          value = combine(value, (*parts)[rank][i]);
        }
        static_cast<T*>(to)[i] = value;
      }
    });
  });
}

size_t ReducedBytes(size_t count, ncclDataType_t type) {
  size_t bytes = 0;
  DispatchReduced(type, ncclSum,
                  [&]<typename T>(T, auto) { bytes = count * sizeof(T); });
  return bytes;
}

// Runs f(call), alone or in the group that is open.
template <typename F>
ncclResult_t Add(ncclComm_t communicator, cudaStream_t stream, F&& f) {
  ++open_calls.depth;
  f(open_calls.Of(communicator, stream));
  return open_calls.Close();
}

ncclResult_t CheckPeer(ncclComm_t communicator, int peer) {
  return peer >= 0 && peer < communicator->group->size ? ncclSuccess
                                                       : ncclInvalidArgument;
}

// Groups whose ranks come together.
struct Groups {
  std::mutex mutex;
  std::condition_variable changed;
  int64_t next_id = 1;
  std::map<int64_t, std::shared_ptr<Group>> by_id;
};
Groups& TheGroups() {
  static auto* const groups = new Groups;
  return *groups;
}

}  // namespace
}  // namespace trireme::cuda_emulation

namespace emulation = trireme::cuda_emulation;

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  emulation::Groups& groups = emulation::TheGroups();
  const std::lock_guard lock(groups.mutex);
  std::memset(id, 0, sizeof(*id));
  const int64_t number = groups.next_id++;
  std::memcpy(id, &number, sizeof(number));
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* communicator, int ranks,
                              ncclUniqueId id, int rank) {
  if (rank < 0 || rank >= ranks) return ncclInvalidArgument;
  int64_t number = 0;
  std::memcpy(&number, &id, sizeof(number));
  emulation::Groups& groups = emulation::TheGroups();
  std::unique_lock lock(groups.mutex);
  std::shared_ptr<emulation::Group>& found = groups.by_id[number];
  if (found == nullptr) found = std::make_shared<emulation::Group>(ranks);
  const std::shared_ptr<emulation::Group> group = found;
  if (group->size != ranks) return ncclInvalidArgument;
  ++group->members;
  groups.changed.notify_all();
  groups.changed.wait(lock, [&] { return group->members == ranks; });
  *communicator = new ncclComm{group, rank};
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
  delete communicator;
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* error) {
  *error = ncclSuccess;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t error) {
  return error == ncclSuccess ? "no error" : "an error of the emulated NCCL";
}

ncclResult_t ncclGroupStart() {
  ++emulation::open_calls.depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (emulation::open_calls.depth == 0) return ncclInvalidUsage;
  return emulation::open_calls.Close();
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type,
                      int peer, ncclComm_t communicator, cudaStream_t stream) {
  const size_t bytes = emulation::BytesOf(count, type);
  emulation::CheckOnDevice("ncclSend", data, bytes);
  if (emulation::CheckPeer(communicator, peer) != ncclSuccess) {
    return ncclInvalidArgument;
  }
  return emulation::Add(communicator, stream, [&](emulation::Call& call) {
    call.Send("ncclSend", data, bytes, peer);
  });
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t communicator, cudaStream_t stream) {
  const size_t bytes = emulation::BytesOf(count, type);
  emulation::CheckOnDevice("ncclRecv", data, bytes);
  if (emulation::CheckPeer(communicator, peer) != ncclSuccess) {
    return ncclInvalidArgument;
  }
  return emulation::Add(communicator, stream, [&](emulation::Call& call) {
    call.Receive("ncclRecv", data, bytes, peer);
  });
}

ncclResult_t ncclAllGather(const void* from, void* to, size_t count,
                           ncclDataType_t type, ncclComm_t communicator,
                           cudaStream_t stream) {
  const size_t bytes = emulation::BytesOf(count, type);
  const int size = communicator->group->size;
  emulation::CheckOnDevice("ncclAllGather", from, bytes);
  emulation::CheckOnDevice("ncclAllGather", to, bytes * size);
  return emulation::Add(communicator, stream, [&](emulation::Call& call) {
    for (int peer = 0; peer < size; ++peer) {
      call.Send("ncclAllGather", from, bytes, peer);
      call.Receive("ncclAllGather", static_cast<char*>(to) + peer * bytes,
                   bytes, peer);
    }
  });
}

ncclResult_t ncclAllReduce(const void* from, void* to, size_t count,
                           ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t communicator, cudaStream_t stream) {
  constexpr const char* kName = "ncclAllReduce";
  const size_t bytes = emulation::ReducedBytes(count, type);
  emulation::CheckOnDevice(kName, from, bytes);
  emulation::CheckOnDevice(kName, to, bytes);
  return emulation::Add(communicator, stream, [&](emulation::Call& call) {
    emulation::AddReduction(call, kName, from, to, count,
                            communicator->group->size, type, operation,
                            [](int) { return 0; });
  });
}

ncclResult_t ncclReduceScatter(const void* from, void* to, size_t count,
                               ncclDataType_t type, ncclRedOp_t operation,
                               ncclComm_t communicator, cudaStream_t stream) {
  constexpr const char* kName = "ncclReduceScatter";
  const int size = communicator->group->size;
  const size_t bytes = emulation::ReducedBytes(count, type);
  emulation::CheckOnDevice(kName, from, bytes * size);
  emulation::CheckOnDevice(kName, to, bytes);
  return emulation::Add(communicator, stream, [&](emulation::Call& call) {
    emulation::AddReduction(call, kName, from, to, count, size, type, operation,
                            [&](int peer) { return peer * count; });
  });
}

ncclResult_t ncclBroadcast(const void* from, void* to, size_t count,
                           ncclDataType_t type, int root,
                           ncclComm_t communicator, cudaStream_t stream) {
  const size_t bytes = emulation::BytesOf(count, type);
  emulation::CheckOnDevice("ncclBroadcast", to, bytes);
  if (emulation::CheckPeer(communicator, root) != ncclSuccess) {
    return ncclInvalidArgument;
  }
  return emulation::Add(communicator, stream, [&](emulation::Call& call) {
    if (communicator->rank == root) {
      for (int peer = 0; peer < communicator->group->size; ++peer) {
        call.Send("ncclBroadcast", from, bytes, peer);
      }
    }
    call.Receive("ncclBroadcast", to, bytes, root);
  });
}

}  // extern "C"
