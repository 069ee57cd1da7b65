// --device of the commands that compute.

#ifndef TRIREME_TOOLS_DEVICE_OPTION_H_
#define TRIREME_TOOLS_DEVICE_OPTION_H_

#include "absl/status/statusor.h"
#include "runtime/device/compute_device.h"
#include "tools/cli/command.h"

namespace trireme {

OptionSpec DeviceOption();

// What was asked for, for one of the machine's ranks.
absl::StatusOr<ComputeDevice> DeviceOf(const ParsedCommand& arguments,
                                       int local_rank, int local_ranks);

}  // namespace trireme

#endif  // TRIREME_TOOLS_DEVICE_OPTION_H_
