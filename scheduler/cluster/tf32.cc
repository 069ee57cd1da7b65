#include "scheduler/cluster/tf32.h"

#include "scheduler/cluster/fields.h"

namespace trireme {
namespace {

double Achieved(double given, double peak) {
  return given > 0 ? given : kDefaultGemmEfficiency * peak;
}

// Attention keeps the time that it has: its products are not in TF32.
void KeepAttention(double share_of_tf32, Cluster::Device& device) {
  if (device.attention_shares().empty()) {
    *device.mutable_attention_shares() = device.product_shares();
  }
  if (device.attention_shares().empty()) {
    Cluster::Device::RateShare& whole = *device.add_attention_shares();
    whole.set_flops(1);
    whole.set_share(1);
  }
  for (auto& point : *device.mutable_attention_shares()) {
    point.set_share(point.share() * share_of_tf32);
  }
}

}  // namespace

void UseTf32(Cluster& cluster) {
  for (Cluster::Device& device : *cluster.mutable_devices()) {
    if (device.peak_tf32_flops() == 0) continue;
    // FP64's default is half of what fp32 has without it.
    if (device.peak_fp64_flops() == 0) {
      device.set_peak_fp64_flops(device.peak_fp32_flops() / 2);
    }
    const double share_of_tf32 =
        Achieved(device.achieved_fp32_flops(), device.peak_fp32_flops()) /
        Achieved(device.achieved_tf32_flops(), device.peak_tf32_flops());
    if (share_of_tf32 > 0 && share_of_tf32 < 1) {
      KeepAttention(share_of_tf32, device);
    }
    device.set_peak_fp32_flops(device.peak_tf32_flops());
    device.set_achieved_fp32_flops(device.achieved_tf32_flops());
  }
}

}  // namespace trireme
