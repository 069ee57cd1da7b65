#include "trainer/metrics/drive_wear.h"

#include <unistd.h>

#include <array>
#include <string_view>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "runtime/comm/control.h"
#include "runtime/device/arena.h"
#include "trainer/config/local_path.h"

namespace trireme {
namespace {

constexpr double kSecondsPerDay = 24 * 60 * 60;

}  // namespace

DriveWear::DriveWear(RankModel& model)
    : model_(model),
      endurance_bytes_(model.plan().offload().nvme().drive_endurance_tbw() *
                       1e12),
      written_before_(model.drive()->written_bytes()) {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  const std::string own = host.data();
  for (const std::string& text :
       model.context().communicators().control().AllGather(
           fmt::format("{} {} {}", model.drive_step().read,
                       model.drive_step().written, own),
           "drives")) {
    const std::vector<std::string> parts =
        absl::StrSplit(text, absl::MaxSplits(' ', 2));
    DriveBytes step;
    if (parts.size() != 3 || parts[2] != own ||
        !absl::SimpleAtoi(parts[0], &step.read) ||
        !absl::SimpleAtoi(parts[1], &step.written)) {
      continue;
    }
    ++ranks_;
    step_.read += step.read;
    step_.written += step.written;
  }
}

std::string DriveWear::AtStart() const {
  const std::string_view contents = model_.window() == nullptr ? "optimizer"
                                    : model_.streamer() == nullptr
                                        ? "blocks"
                                        : "blocks and optimizer";
  const std::string& folder = model_.plan().offload().nvme().folder();
  std::string text = fmt::format(
      "drive  {} of rank 0's {} in {}: {}\n"
      "drive  {} read and {} written a step by this machine's ranks ({})",
      BytesText(model_.drive()->Statistics().peak_bytes), contents,
      LocalPath(folder).value_or(folder), model_.drive()->Describe(),
      BytesText(step_.read), BytesText(step_.written), ranks_);
  if (endurance_bytes_ > 0 && step_.written > 0) {
    text +=
        fmt::format("; its {:.4g} TB are {:.3g} steps", endurance_bytes_ / 1e12,
                    endurance_bytes_ / static_cast<double>(step_.written));
  }
  return text + "\n";
}

std::string DriveWear::AtEnd(double step_s) const {
  std::string text = fmt::format(
      "drive  {} written by rank 0 since the start; updates waited {:.2g} s "
      "for it",
      BytesText(model_.drive()->written_bytes() - written_before_),
      model_.streamer() != nullptr ? model_.streamer()->waited_s() : 0);
  if (model_.window() != nullptr) {
    text +=
        fmt::format(", copies of blocks {:.2g} s", model_.window()->waited_s());
  }
  if (endurance_bytes_ > 0 && step_.written > 0 && step_s > 0) {
    text += fmt::format("; at {:.3g} s a step it lasts {:.3g} days", step_s,
                        endurance_bytes_ / static_cast<double>(step_.written) *
                            step_s / kSecondsPerDay);
  }
  return text + "\n";
}

}  // namespace trireme
