// Two ranks that make the mistake named on the command line. What happens then
// is for communicator_mistakes_test.sh to judge.

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

Tensor Ones(Device& device, int64_t count) {
  return Tensor::FromValues<float>(device, {count},
                                   std::vector<float>(count, 1.0f));
}

// Says so once anything has been written to `untouched`, which holds zeros.
void WatchForOverruns(Tensor untouched) {
  const auto* bytes =
      static_cast<const volatile unsigned char*>(untouched.raw_data());
  while (true) {
    for (int64_t i = 0; i < untouched.bytes(); ++i) {
      if (bytes[i] == 0) continue;
      LOG(ERROR) << "written past the end of a receive, at byte " << i;
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void Run(const std::string& mistake, MpiWorld& world) {
  const auto pair =
      world.Create(std::vector{0, 1}, "pair", Progress::kWhileWaiting);
  CpuDevice device(1 << 26);
  const bool first = world.world_rank() == 0;
  const auto values = [&](int64_t count) {
    return Tensor::Zeros(device, {count}, DType::kFloat32);
  };
  if (mistake == "deadlock") {
    pair->Receive(values(4), first ? 1 : 0, 3, "activation 7").Wait();
  } else if (mistake == "missing") {
    if (first) {
      pair->AllReduce(values(4), ReduceOp::kSum, "bucket 2").Wait();
    } else {
      pair->Receive(values(4), 0, 3, "activation 7").Wait();
    }
  } else if (mistake == "size") {
    if (first) {
      pair->Send(values(8), 1, 3, "activation 7").Wait();
    } else {
      pair->Receive(values(16), 0, 3, "activation 7").Wait();
    }
    pair->Barrier("end");
  } else if (mistake == "long") {
    if (first) {
      pair->Send(values(16), 1, 3, "activation 7").Wait();
    } else {
      pair->Receive(values(8), 0, 3, "activation 7").Wait();
    }
    pair->Barrier("end");
  } else if (mistake == "overrun") {
    // More than fits into what transports send at once.
    constexpr int64_t kElements = 1 << 18;
    const Tensor all = values(2 * kElements);
    if (first) {
      all.CopyFrom(Ones(device, 2 * kElements));
      pair->Send(all, 1, 3, "activation 7").Wait();
    } else {
      std::thread(WatchForOverruns, all.Slice(kElements, 2 * kElements))
          .detach();
      pair->Receive(all.Slice(0, kElements), 0, 3, "activation 7").Wait();
    }
    pair->Barrier("end");
  } else if (mistake == "tag") {
    if (first) pair->Send(values(4), 1, -1, "activation 7").Wait();
    pair->Barrier("end");
  } else {
    LOG(FATAL) << "no such mistake: " << mistake;
  }
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  CHECK_EQ(argc, 2);
  const std::string mistake = argv[1];
  const bool hangs = mistake == "deadlock" || mistake == "missing";
  auto world = trireme::MpiWorld::Create(
      &argc, &argv,
      {.deadline = std::chrono::milliseconds(hangs ? 500 : 60000)});
  CHECK_OK(world.status());
  trireme::Run(mistake, **world);
  std::puts("no mistake was noticed");
  return 0;
}
