// trireme status, watch, checkpoint, stop: what a run that was launched is
// doing, and what it is to do.

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <thread>

#include "absl/strings/numbers.h"
#include "fmt/format.h"
#include "runtime/core/status.h"
#include "tools/commands.h"
#include "trainer/coordinator/coordinator_client.h"
#include "trainer/coordinator/launch_record.h"
#include "trainer/coordinator/status_text.h"

namespace trireme {
namespace {

constexpr std::chrono::seconds kRedraw(1);
// Upwards from the last drawing, and away with it.
constexpr char kClear[] = "\x1b[H\x1b[2J";

const PositionalSpec kRun = {.name = "RUN", .help = "the run's folder"};

absl::StatusOr<JobStatus> StatusOfRun(const std::string& run) {
  ASSIGN_OR_RETURN(const LaunchRecord launch, ReadLaunchRecord(run));
  return CoordinatorClient(launch.address).GetStatus();
}

absl::Status Tell(const std::string& run, Order::Kind kind) {
  ASSIGN_OR_RETURN(const LaunchRecord launch, ReadLaunchRecord(run));
  return CoordinatorClient(launch.address).GiveOrder(kind);
}

const OptionSpec kPeakFlops = {
    .name = "peak_flops",
    .value = "FLOPS",
    .help = "one rank's peak FLOP/s, to print the MFU"};

absl::StatusOr<std::optional<double>> PeakFlops(
    const ParsedCommand& arguments) {
  if (!arguments.Has(kPeakFlops.name)) return std::nullopt;
  const std::string text = arguments.Get(kPeakFlops.name);
  double value = 0;
  if (!absl::SimpleAtod(text, &value) || !(value > 0)) {
    return InvalidArgument(
        "--peak_flops: found '{}', expected a number above 0", text);
  }
  return value;
}

int RunStatus(const ParsedCommand& arguments, int, char**) {
  const auto peak_flops = PeakFlops(arguments);
  if (!peak_flops.ok()) return Fail("status", peak_flops.status());
  const auto status = StatusOfRun(arguments.positionals()[0]);
  if (!status.ok()) return Fail("status", status.status());
  fmt::print("{}", StatusText(*status, *peak_flops));
  return 0;
}

int RunWatch(const ParsedCommand& arguments, int, char**) {
  const auto peak_flops = PeakFlops(arguments);
  if (!peak_flops.ok()) return Fail("watch", peak_flops.status());
  const std::string run = arguments.positionals()[0];
  const absl::StatusOr<LaunchRecord> launch = ReadLaunchRecord(run);
  if (!launch.ok()) return Fail("watch", launch.status());
  CoordinatorClient client(launch->address);
  const bool terminal = isatty(STDOUT_FILENO) == 1;
  absl::StatusOr<JobStatus> status = client.GetStatus();
  if (!status.ok()) return Fail("watch", status.status());
  for (; status.ok(); status = client.GetStatus()) {
    fmt::print("{}{}", terminal ? kClear : "",
               StatusText(*status, *peak_flops));
    std::fflush(stdout);
    std::this_thread::sleep_for(kRedraw);
    if (!terminal) fmt::print("\n");
  }
  // A launch that ends takes its address away; one that is there but does not
  // answer may be in trouble.
  std::this_thread::sleep_for(kRedraw);
  if (ReadLaunchRecord(run).ok()) return Fail("watch", status.status());
  fmt::print("ended\n");
  return 0;
}

int RunCheckpoint(const ParsedCommand& arguments, int, char**) {
  const absl::Status status = Tell(arguments.positionals()[0], Order::SAVE);
  if (!status.ok()) return Fail("checkpoint", status);
  fmt::print("ordered; it is written after the step at hand\n");
  return 0;
}

int RunStop(const ParsedCommand& arguments, int, char**) {
  const absl::Status status = Tell(arguments.positionals()[0], Order::STOP);
  if (!status.ok()) return Fail("stop", status);
  fmt::print("ordered; the run saves after the step at hand, then ends\n");
  return 0;
}

}  // namespace

Command StatusCommand() {
  return {{.name = "status",
           .summary = "shows what a launched run is doing",
           .positionals = {kRun},
           .options = {kPeakFlops},
           .example = "trireme status runs/fashion-mnist"},
          RunStatus};
}

Command WatchCommand() {
  return {{.name = "watch",
           .summary = "shows a launched run until it ends, once a second",
           .positionals = {kRun},
           .options = {kPeakFlops},
           .example = "trireme watch runs/fashion-mnist"},
          RunWatch};
}

Command CheckpointCommand() {
  return {{.name = "checkpoint",
           .summary = "has a launched run write a checkpoint now",
           .positionals = {kRun},
           .options = {},
           .example = "trireme checkpoint runs/fashion-mnist"},
          RunCheckpoint};
}

Command StopCommand() {
  return {{.name = "stop",
           .summary = "has a launched run write a checkpoint and end",
           .positionals = {kRun},
           .options = {},
           .example = "trireme stop runs/fashion-mnist"},
          RunStop};
}

}  // namespace trireme
