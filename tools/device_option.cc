#include "tools/device_option.h"

#include <string>

#include "runtime/core/status.h"

namespace trireme {

OptionSpec DeviceOption() {
  return {.name = "device",
          .value = "NAME",
          .help =
              "cpu, cuda (a machine's ranks take its GPUs in turn) or "
              "cuda:N (default: cuda where there is a GPU)"};
}

absl::StatusOr<ComputeDevice> DeviceOf(const ParsedCommand& arguments,
                                       int local_rank, int local_ranks) {
  const std::string text =
      arguments.Has("device") ? arguments.Get("device") : "";
  absl::StatusOr<ComputeDevice> device =
      ComputeDevice::Choose(text, local_rank, local_ranks);
  if (!device.ok()) return WithContext(device.status(), "--device");
  return device;
}

}  // namespace trireme
