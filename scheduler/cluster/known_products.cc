#include "scheduler/cluster/known_products.h"

#include <algorithm>
#include <array>
#include <string>

#include "absl/status/statusor.h"
#include "scheduler/cluster/cluster.h"
#include "scheduler/cluster/cluster.pb.h"

namespace trireme {
namespace {

struct Product {
  std::string_view name;
  std::string_view device;  // ClusterPreset's
};

// A100s have one peak whatever their form.
constexpr std::array<Product, 9> kProducts = {{
    {"NVIDIA A100-SXM4-40GB", "A100"},
    {"NVIDIA A100-SXM4-80GB", "A100"},
    {"NVIDIA A100-PCIE-40GB", "A100"},
    {"NVIDIA A100-PCIE-80GB", "A100"},
    {"NVIDIA A100 80GB PCIe", "A100"},
    {"NVIDIA H100 80GB HBM3", "H100"},
    {"NVIDIA H200", "H200"},
    {"NVIDIA B200", "B200"},
    {"NVIDIA GeForce RTX 4090", "RTX4090"},
}};

std::optional<std::string_view> DeviceOfProduct(std::string_view product) {
  for (const Product& known : kProducts) {
    if (known.name == product) return known.device;
  }
  return std::nullopt;
}

absl::StatusOr<Cluster> ClusterOfOne(std::string_view device) {
  return DescribeCluster(
      {.device = std::string(device), .nodes = 1, .devices_per_node = 1});
}

}  // namespace

std::optional<double> PeakFlopsOfProduct(std::string_view product,
                                         int64_t element_bytes, bool tf32) {
  const std::optional<std::string_view> device = DeviceOfProduct(product);
  if (!device.has_value()) return std::nullopt;
  const auto cluster = ClusterOfOne(*device);
  if (!cluster.ok()) return std::nullopt;
  if (element_bytes == 1) {
    const double float8 = cluster->devices(0).peak_fp8_flops();
    return float8 > 0 ? std::optional(float8) : std::nullopt;
  }
  if (element_bytes == 2) return cluster->devices(0).peak_bf16_flops();
  if (element_bytes == 4) {
    return tf32 ? cluster->devices(0).peak_tf32_flops()
                : cluster->devices(0).peak_fp32_flops();
  }
  return std::nullopt;
}

double PeakFlopsOfDevice(double reached, std::string_view product,
                         int64_t element_bytes, bool tf32) {
  return std::max(reached,
                  PeakFlopsOfProduct(product, element_bytes, tf32).value_or(0));
}

bool CanBe(std::string_view name, std::string_view product) {
  const bool processor = name.starts_with(kProcessor);
  // As `trireme profile` calls them.
  const std::string_view of_host = name.substr(0, name.find(" of "));
  if (DeviceOfProduct(of_host).has_value()) return of_host == product;
  const bool known = ClusterOfOne(name).ok();
  if (product.empty()) return !known;
  return !processor && (!known || DeviceOfProduct(product) == name);
}

}  // namespace trireme
