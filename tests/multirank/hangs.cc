// Four ranks that hang in the way named on the command line, with a deadline
// of 2 s. What happens then is for hangs_test.sh to judge.

#include <chrono>
#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"

// Of the leak sanitizer, where the program is built with it.
extern "C" {
void __lsan_disable() __attribute__((weak));
void __lsan_enable() __attribute__((weak));
}

namespace trireme {
namespace {

using std::chrono::seconds;

void Run(const std::string& way, MpiWorld& world) {
  const int rank = world.world_rank();
  const std::vector<int> everyone = {0, 1, 2, 3};
  if (way == "creation" && rank == 3) {
    std::this_thread::sleep_for(seconds(60));
  }
  const auto all = world.Create(everyone, "tp activations [0-3]");
  // Stages 0, 1 and 2, 3, as a pipeline makes them.
  const int first = rank / 2 * 2;
  const auto pair = world.Create(std::vector{first, first + 1}, "pp messages",
                                 Progress::kBackground);
  CpuDevice device(1 << 24);
  const auto values = [&](int64_t count) {
    return Tensor::Zeros(device, {count}, DType::kFloat32);
  };
  const auto all_reduce = [&](std::string_view name, int64_t count = 64) {
    all->AllReduce(values(count), ReduceOp::kSum, name).Wait();
  };

  all_reduce("warm-up");
  if (way == "none") {
    // The leader has more to do; waiting for the end has no deadline.
    if (rank == 0) std::this_thread::sleep_for(seconds(3));
  } else if (way == "collective") {
    if (rank == 2) {
      all->AllGather(values(16), values(64), "B").Wait();
    } else {
      all_reduce("A");
    }
  } else if (way == "size") {
    all_reduce("A", rank == 1 ? 128 : 64);
  } else if (way == "finished") {
    if (rank != 3) all_reduce("A");
  } else if (way == "computing") {
    all->SetActivity("Forward mb=3 chunk=0");
    if (rank == 3) std::this_thread::sleep_for(seconds(60));
    all_reduce("A");
  } else if (way == "receive") {
    if (rank == 1) {
      pair->Receive(values(64), 0, 7, "Recv activation mb=3 hop=0").Wait();
    }
    all_reduce("A");
  } else if (way == "stopped" || way == "stopped_leader") {
    if (rank == (way == "stopped" ? 3 : 0)) raise(SIGSTOP);
    all_reduce("A");
  } else {
    CHECK(way == "creation") << "no such way: " << way;
  }
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  CHECK_EQ(argc, 2);
  const std::string way = argv[1];
  // What OpenMPI allocates here lives as long as the process.
  if (__lsan_disable != nullptr) __lsan_disable();
  auto world = trireme::MpiWorld::Create(
      &argc, &argv, {.deadline = std::chrono::milliseconds(2000)});
  if (__lsan_enable != nullptr) __lsan_enable();
  CHECK_OK(world.status());
  trireme::Run(way, **world);
  return 0;
}
