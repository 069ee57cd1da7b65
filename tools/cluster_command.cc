// trireme cluster describe: a cluster of known hardware, for what-ifs.

#include <string>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/cluster/cluster.h"
#include "tools/commands.h"
#include "trainer/config/written_file.h"

namespace trireme {
namespace {

constexpr char kName[] = "cluster";
constexpr char kWriter[] = "cluster describe";

absl::Status Describe(const ParsedCommand& arguments) {
  if (arguments.positionals()[0] != "describe") {
    return InvalidArgument("found '{}', expected trireme cluster describe",
                           arguments.positionals()[0]);
  }
  ClusterPreset preset = {.launch_s = kUsualLaunchSeconds,
                          .ramp_s = kUsualRampSeconds};
  preset.device = arguments.Get("device");
  preset.network = arguments.Get("network");
  ASSIGN_OR_RETURN(preset.nodes, arguments.GetInt("nodes"));
  ASSIGN_OR_RETURN(preset.devices_per_node,
                   arguments.GetInt("devices_per_node"));
  ASSIGN_OR_RETURN(const Cluster cluster, DescribeCluster(preset));
  const std::string out = arguments.Get("out");
  if (!arguments.Has("overwrite")) {
    RETURN_IF_ERROR(CheckReplaceable(out, kWriter));
  }
  RETURN_IF_ERROR(WriteMarkedFile(cluster, kWriter, out));
  fmt::print("{} x {} {} over {}: {}\n", preset.nodes, preset.devices_per_node,
             preset.device, preset.network, out);
  return absl::OkStatus();
}

int Run(const ParsedCommand& arguments, int, char**) {
  const absl::Status status = Describe(arguments);
  return status.ok() ? 0 : Fail(kName, status);
}

}  // namespace

Command ClusterCommand() {
  return {
      {.name = kName,
       .summary = "writes a cluster of known hardware for `trireme plan`",
       .positionals = {{.name = "describe", .help = "what to do"}},
       .options = {{.name = "device",
                    .value = "NAME",
                    .default_value = "H100",
                    .help = "A100, H100, H200, B200 or RTX4090"},
                   {.name = "nodes",
                    .value = "N",
                    .default_value = "1",
                    .help = "hosts"},
                   {.name = "devices_per_node",
                    .value = "N",
                    .default_value = "8",
                    .help = "devices in each"},
                   {.name = "network",
                    .value = "NAME",
                    .default_value = "ndr",
                    .help =
                        "between hosts: hdr, ndr or xdr InfiniBand for each "
                        "device; ethernet-25, ethernet-100 or ethernet-400 "
                        "for the host"},
                   {.name = "out",
                    .value = "FILE",
                    .default_value = "cluster.textproto",
                    .help = "the cluster; edit it for what-ifs"},
                   {.name = "overwrite",
                    .help = "replaces what --out names, whoever wrote it"}},
       .example = "trireme cluster describe --device A100 --nodes 4 "
                  "--network hdr --out cluster.textproto"},
      Run};
}

}  // namespace trireme
