#include "scheduler/cluster/tf32.h"

namespace trireme {

void UseTf32(Cluster& cluster) {
  for (Cluster::Device& device : *cluster.mutable_devices()) {
    if (device.peak_tf32_flops() == 0) continue;
    // FP64's default is half of what fp32 has without it.
    if (device.peak_fp64_flops() == 0) {
      device.set_peak_fp64_flops(device.peak_fp32_flops() / 2);
    }
    device.set_peak_fp32_flops(device.peak_tf32_flops());
    device.set_achieved_fp32_flops(device.achieved_tf32_flops());
  }
}

}  // namespace trireme
