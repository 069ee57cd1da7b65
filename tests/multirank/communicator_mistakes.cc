// Two ranks that make the mistake named on the command line. What happens then
// is for communicator_mistakes_test.sh to judge.

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

void Run(const std::string& mistake, MpiWorld& world) {
  const auto pair =
      world.Create(std::vector{0, 1}, "pair", Progress::kWhileWaiting);
  CpuDevice device(1 << 24);
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
