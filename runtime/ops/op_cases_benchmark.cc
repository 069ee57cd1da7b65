// How fast each op case is on a device, over its floor: the larger of its
// product FLOPs at the rate of a large product, and of its operands and results
// at the rate of a large copy, all measured in the same run by the device's
// clock. A case is all ops
// that it names, forward and backward, on small operands: what is far above
// the floor costs by its launches.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "fmt/format.h"
#include "runtime/core/median.h"
#include "runtime/core/status.h"
#include "runtime/device/compute_device.h"
#include "runtime/device/kernel_libraries.h"
#include "runtime/device/stream.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/op_cases_testing.h"
#include "runtime/ops/random.h"

ABSL_FLAG(std::string, device, "", "cpu, cuda or cuda:N");
ABSL_FLAG(std::string, match, "", "only cases with this in their name");
ABSL_FLAG(double, seconds, 0.1, "how long to measure each case");
ABSL_FLAG(bool, own_kernels, false, "not cuDNN's");
ABSL_FLAG(bool, json, false, "a line of JSON for each figure, not tables");

namespace trireme {
namespace {

constexpr int64_t kMemory = int64_t{4} << 30;

// Median of the seconds that `run` takes on the device, in which a GPU also
// waits for the host where that gives it work more slowly than it does it.
template <typename F>
double SecondsOf(Device& device, F run) {
  const auto once = [&] {
    const auto begin = device.stream().Mark();
    run();
    const auto end = device.stream().Mark();
    end->Wait();
    return end->SecondsSince(*begin);
  };
  once();
  std::vector<double> seconds;
  double total = 0;
  while (seconds.size() < 3 || total < absl::GetFlag(FLAGS_seconds)) {
    seconds.push_back(once());
    total += seconds.back();
  }
  return Median(seconds);
}

// FLOPs of a large product a second, of normal numbers: a GPU multiplies zeros
// at a higher clock. GPUs need larger ones than processors.
double ProductRate(Device& device, DType dtype) {
  const int64_t size = device.on_host() ? 1024 : 8192;
  const auto operand = [&](uint64_t seed) {
    Tensor matrix = Tensor::Empty(device, {size, size}, dtype);
    const ElementRun all[] = {{.count = size * size}};
    FillRandom(RandomStream({.seed = seed}), Distribution::kNormal, 1, all,
               matrix);
    return matrix;
  };
  const Tensor a = operand(1), b = operand(2);
  const auto side = static_cast<double>(size);
  return 2.0 * side * side * side / SecondsOf(device, [&] { MatMul(a, b); });
}

// Bytes a second that a copy reads and writes which no cache holds.
double CopyRate(Device& device) {
  const int64_t elements = (device.on_host() ? int64_t{16} : int64_t{64}) << 20;
  const Tensor from = Tensor::Zeros(device, {elements}, DType::kFloat32);
  const Tensor to = Tensor::Zeros(device, {elements}, DType::kFloat32);
  return 2.0 * 4.0 * static_cast<double>(elements) /
         SecondsOf(device, [&] { to.CopyFrom(from); });
}

Work CountedOf(const OpCase& op, DType dtype, Device& dry) {
  Operands operands(dry, dtype);
  const Work before = dry.stream().counted();
  op.run(operands);
  const Work after = dry.stream().counted();
  return {.product_flops = after.product_flops - before.product_flops,
          .bytes = after.bytes - before.bytes};
}

int Run() {
  const absl::StatusOr<ComputeDevice> chosen =
      ComputeDevice::Choose(absl::GetFlag(FLAGS_device), 0, 1);
  if (!chosen.ok()) {
    fmt::print(stderr, "{}\n", MessageOf(chosen.status()));
    return 1;
  }
  const KernelLibraries libraries =
      absl::GetFlag(FLAGS_own_kernels) ? kOwnKernels : KernelLibraries();
  const std::unique_ptr<Device> device = chosen->Make(kMemory, libraries);
  const std::unique_ptr<Device> dry = MakeDryDevice(chosen->kind(), libraries);
  const double copy_rate = CopyRate(*device);
  const bool json = absl::GetFlag(FLAGS_json);
  if (json) {
    fmt::print("{{\"ceiling\": \"copy\", \"gb_per_s\": {:.6g}}}\n",
               copy_rate / 1e9);
  } else {
    fmt::print("device {}, copies {:.1f} GB/s\n", chosen->text(),
               copy_rate / 1e9);
  }
  for (const DType dtype : kFloatingTypes) {
    const double product_rate = ProductRate(*device, dtype);
    if (json) {
      fmt::print("{{\"ceiling\": \"product_{}\", \"gflop_per_s\": {:.6g}}}\n",
                 DTypeName(dtype), product_rate / 1e9);
    } else {
      fmt::print(
          "\n{}: products {:.1f} GFLOP/s\n{:<44} {:>10} {:>10} {:>8} {:>7}\n",
          DTypeName(dtype), product_rate / 1e9, "case", "us", "GFLOP/s", "GB/s",
          "floor");
    }
    for (const OpCase& op : EveryOp()) {
      const std::string name = NameOf(op, dtype);
      if (name.find(absl::GetFlag(FLAGS_match)) == std::string::npos) continue;
      Operands operands(*device, dtype);
      operands.Keep();
      const double seconds = SecondsOf(*device, [&] {
        operands.Rewind();
        op.run(operands);
      });
      const Work work = CountedOf(op, dtype, *dry);
      const auto flops = static_cast<double>(work.product_flops);
      const auto bytes = static_cast<double>(work.bytes);
      const double floor = std::max(flops / product_rate, bytes / copy_rate);
      fmt::print(
          fmt::runtime(
              json ? "{{\"case\": \"{}\", \"us\": {:.6g}, \"gflop_per_s\": "
                     "{:.6g}, \"gb_per_s\": {:.6g}, \"of_floor_percent\": "
                     "{:.4g}}}\n"
                   : "{:<44} {:>10.1f} {:>10.1f} {:>8.2f} {:>6.1f} %\n"),
          name, 1e6 * seconds, flops / seconds / 1e9, bytes / seconds / 1e9,
          100 * floor / seconds);
    }
  }
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("measures every op case on a device");
  absl::ParseCommandLine(argc, argv);
  return trireme::Run();
}
