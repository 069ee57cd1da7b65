#include "trainer/profile/device_profile.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <thread>

#include "runtime/comm/control.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/cuda/gpus.h"
#include "runtime/device/host_pages.h"
#include "runtime/ops/float8.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/random.h"
#include "runtime/ops/transfer.h"
#include "trainer/profile/profile_statistics.h"

namespace trireme {
namespace {

constexpr int64_t kLeastSide = 1024;
constexpr int64_t kMostSide = 8192;
constexpr double kEnoughSeconds = 2e-3;
constexpr int64_t kSmallestSide = 32;
// What is short is given together: a GPU then does not wait for the host, as in
// training, where the host is ahead.
constexpr int kTogether = 16;

double ProductFlops(int64_t side) {
  const auto n = static_cast<double>(side);
  return 2 * n * n * n;
}

double MedianSeconds(int repetitions, Device& device,
                     const std::function<void()>& run) {
  return Median(TimesOf(repetitions, device.stream(), run));
}

// Of normal numbers: a GPU multiplies zeros at a higher clock.
Tensor Matrix(Device& device, DType dtype, int64_t side, uint64_t seed) {
  Tensor matrix = Tensor::Empty(device, {side, side}, dtype);
  const ElementRun all[] = {{.count = side * side}};
  FillRandom(RandomStream({.seed = seed}), Distribution::kNormal, /*scale=*/1,
             all, matrix);
  return matrix;
}

// Two operands and their product.
class Product {
 public:
  Product(Device& device, DType dtype, int64_t side)
      : a_(Matrix(device, dtype, side, 1)),
        b_(Matrix(device, dtype, side, 2)) {}

  void Run() const { MatMul(a_, b_); }
  std::vector<double> Seconds(int repetitions) const {
    return TimesOf(repetitions, a_.device().stream(), [this] { Run(); });
  }
  double Flops(int repetitions) const {
    return ProductFlops(a_.dim(0)) / Median(Seconds(repetitions));
  }

 private:
  Tensor a_, b_;
};

// The same on all ranks: what the slowest needs is enough.
int64_t SideOf(const DeviceProfileOptions& options, Device& device,
               Communicator& world) {
  if (options.product_side > 0) return options.product_side;
  int64_t side = kLeastSide;
  while (side < kMostSide) {
    double seconds =
        device.on_host()
            ? kEnoughSeconds
            : Median(Product(device, DType::kBFloat16, side).Seconds(1));
    Control(world).Max(std::span(&seconds, 1), "profile");
    if (seconds >= kEnoughSeconds) break;
    side *= 2;
  }
  return side;
}

double Float8Flops(Device& device, int64_t side, int repetitions) {
  const auto codes = [&](uint64_t seed) {
    const Tensor matrix = Matrix(device, DType::kBFloat16, side, seed);
    const Tensor scales = Tensor::Empty(device, {side}, DType::kFloat32);
    Float8Scales(matrix, Float8Of::kRows, scales);
    return ToFloat8(matrix, Float8Of::kRows, scales, "profile");
  };
  const QuantizedTensor a = codes(1), b = codes(2);
  return ProductFlops(side) / MedianSeconds(repetitions, device, [&] {
           MatMulFloat8(a, b, /*bias=*/nullptr, DType::kBFloat16, "profile");
         });
}

// Two reads and a write.
std::vector<double> ElementwiseSeconds(Device& device, int64_t bytes,
                                       int repetitions) {
  const Tensor x = Tensor::Zeros(device, {bytes / 4}, DType::kFloat32);
  const Tensor y = Tensor::Zeros(device, {bytes / 4}, DType::kFloat32);
  return TimesOf(repetitions, device.stream(), [&] { AddInPlace(x, y); });
}

double LaunchSeconds(Device& device, int repetitions) {
  if (device.on_host()) return 0;
  const Tensor x = Tensor::Zeros(device, {1}, DType::kFloat32);
  const Tensor y = Tensor::Zeros(device, {1}, DType::kFloat32);
  return MedianSeconds(repetitions, device,
                       [&] {
                         for (int i = 0; i < kTogether; ++i) AddInPlace(x, y);
                       }) /
         kTogether;
}

// How many times as long a product takes while something else of the device
// runs, `beside` it.
double Slowed(double beside_s, double alone_s) {
  return std::max(1.0, beside_s / alone_s);
}

struct CopyRates {
  double to_device_bytes_per_s = 0;
  double to_host_bytes_per_s = 0;
  double beside = 1;  // kBesideCopies
};

// Between two places of the host's memory, which is where the device's tensors
// are too.
CopyRates CopiesOfHost(const Product& product, double alone_s, int64_t bytes,
                       Device& device, int repetitions) {
  CopyRates rates;
  {
    const Tensor from = Tensor::Zeros(device, {bytes / 4}, DType::kFloat32);
    const Tensor to = Tensor::Zeros(device, {bytes / 4}, DType::kFloat32);
    rates.to_device_bytes_per_s = rates.to_host_bytes_per_s =
        static_cast<double>(bytes) /
        MedianSeconds(repetitions, device, [&] { to.CopyFrom(from); });
  }
  std::vector<char> from(bytes), to(bytes);
  std::atomic<bool> stop = false;
  std::thread copying([&] {
    while (!stop) std::memcpy(to.data(), from.data(), from.size());
  });
  const double beside_s = Median(product.Seconds(repetitions));
  stop = true;
  copying.join();
  rates.beside = Slowed(beside_s, alone_s);
  return rates;
}

// Between pinned memory of the host and a GPU's.
absl::StatusOr<CopyRates> CopiesOfGpu(const Product& product, double alone_s,
                                      int64_t bytes, Device& device,
                                      int repetitions) {
  RETURN_IF_ERROR(device.status());
  CpuDevice host(std::numeric_limits<int64_t>::max());
  const Shape shape = {bytes / 4};
  const Tensor here = Tensor::Zeros(host, shape, DType::kFloat32);
  const Tensor there = Tensor::Zeros(device, shape, DType::kFloat32);
  ASSIGN_OR_RETURN(const auto pinned, PinnedMemory::Pin(PagesOf({here})));
  device.Synchronize();
  Stream& in = device.stream(StreamKind::kCopyIn);
  Stream& out = device.stream(StreamKind::kCopyOut);
  const auto size = static_cast<double>(bytes);
  CopyRates rates;
  rates.to_device_bytes_per_s =
      size /
      Median(TimesOf(repetitions, in, [&] { Transfer(here, there, in); }));
  rates.to_host_bytes_per_s =
      size /
      Median(TimesOf(repetitions, out, [&] { Transfer(there, here, out); }));
  // For as long as the product takes alone, and half as long again.
  const auto copies = static_cast<int>(
      std::ceil(1.5 * alone_s * rates.to_device_bytes_per_s / size));
  std::vector<double> beside_s;
  for (int i = 0; i < repetitions; ++i) {
    for (int copy = 0; copy < copies; ++copy) Transfer(here, there, in);
    beside_s.push_back(SecondsOf(device.stream(), [&] { product.Run(); }));
    device.Synchronize();
  }
  rates.beside = Slowed(Median(beside_s), alone_s);
  return rates;
}

// While all ranks add up a large tensor. Collective.
double SlowedByReductions(const Product& product, double alone_s, int64_t bytes,
                          Device& device, CommunicatorFactory& factory,
                          int repetitions) {
  if (factory.world_size() == 1) return 1;
  std::vector<int> everyone(factory.world_size());
  std::iota(everyone.begin(), everyone.end(), 0);
  const std::unique_ptr<Communicator> group =
      factory.Create(everyone, "profile beside compute", Progress::kBackground);
  const Tensor sum = Tensor::Zeros(device, {bytes / 4}, DType::kFloat32,
                                   MemoryCategory::kCommunication, "profile");
  std::vector<double> beside_s;
  for (int i = 0; i < repetitions; ++i) {
    auto pending = group->AllReduce(sum, ReduceOp::kSum, "profile");
    beside_s.push_back(SecondsOf(device.stream(), [&] { product.Run(); }));
    pending.Wait();
    device.Synchronize();
  }
  return Slowed(Median(beside_s), alone_s);
}

}  // namespace

absl::StatusOr<DeviceRates> MeasureDeviceRates(
    const DeviceProfileOptions& options, const ComputeDevice& kind,
    Device& device, CommunicatorFactory& factory, Communicator& world) {
  const int repetitions = options.repetitions;
  DeviceRates rates;
  world.Barrier("profile");
  rates.product_side = SideOf(options, device, world);
  for (int64_t side = kSmallestSide; side <= rates.product_side / 4;
       side *= 2) {
    rates.small_sides.push_back(side);
  }
  const int64_t side = rates.product_side;
  const double flops = ProductFlops(side);
  std::vector<double> own(kNumDeviceRates);
  const std::vector<double> bf16_s =
      Product(device, DType::kBFloat16, side).Seconds(repetitions);
  const Product fp32(device, DType::kFloat32, side);
  const std::vector<double> fp32_s = fp32.Seconds(repetitions);
  const double alone_s = Median(fp32_s);
  const std::vector<double> elementwise_s =
      ElementwiseSeconds(device, options.bytes, repetitions);
  own[kBFloat16Flops] = flops / Median(bf16_s);
  own[kFloat32Flops] = flops / alone_s;
  own[kFloat64Flops] =
      Product(device, DType::kFloat64, side).Flops(repetitions);
  own[kMemoryBytes] = own[kHostMemoryBytes] =
      3.0 * static_cast<double>(options.bytes) / Median(elementwise_s);
  own[kRateSpread] =
      std::max({Spread(bf16_s), Spread(fp32_s), Spread(elementwise_s)});
  own[kLaunchSeconds] = LaunchSeconds(device, repetitions);
  absl::StatusOr<CopyRates> copies;
  if (device.on_host()) {
    copies = CopiesOfHost(fp32, alone_s, options.bytes, device, repetitions);
  } else {
    CpuDevice host(std::numeric_limits<int64_t>::max());
    own[kHostMemoryBytes] =
        3.0 * static_cast<double>(options.bytes) /
        Median(ElementwiseSeconds(host, options.bytes, repetitions));
    const std::unique_ptr<Device> tf32 =
        kind.Make(device.Statistics().limit_bytes, {.tf32 = true});
    own[kTf32Flops] = Product(*tf32, DType::kFloat32, side).Flops(repetitions);
    if (kind.multiplies_float8()) {
      own[kFloat8Flops] = Float8Flops(device, side, repetitions);
    }
    copies = CopiesOfGpu(fp32, alone_s, options.bytes, device, repetitions);
  }
  // A rank that could not pin is not waited for below.
  RETURN_IF_ERROR(Control(world).Agree(copies.status(), "copy profile"));
  own[kToDeviceBytes] = copies->to_device_bytes_per_s;
  own[kToHostBytes] = copies->to_host_bytes_per_s;
  own[kBesideCopies] = copies->beside;
  own[kBesideReductions] = SlowedByReductions(fp32, alone_s, options.bytes,
                                              device, factory, repetitions);
  for (const int64_t small : rates.small_sides) {
    const Product product(device, DType::kFloat32, small);
    own.push_back(kTogether * ProductFlops(small) /
                  MedianSeconds(repetitions, device, [&] {
                    for (int i = 0; i < kTogether; ++i) product.Run();
                  }));
  }
  RETURN_IF_ERROR(Control(world).Agree(device.status(), "profile"));
  rates.of_rank = GatherRows(world, own);
  return rates;
}

}  // namespace trireme
