#include "runtime/core/control_groups.h"

#include <algorithm>
#include <fstream>
#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace trireme {
namespace {

// A group without a limit has 2^63 less a page in version 1.
constexpr int64_t kNoLimit = int64_t{1} << 60;

std::vector<std::string> Lines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> Words(const std::string& line) {
  return absl::StrSplit(line, ' ', absl::SkipEmpty());
}

std::vector<std::string> FirstLine(const std::string& path) {
  const std::vector<std::string> lines = Lines(path);
  return lines.empty() ? std::vector<std::string>() : Words(lines[0]);
}

template <typename T>
void Lower(std::optional<T>& limit, T found) {
  limit = std::min(limit.value_or(found), found);
}

void LowerMemory(const std::string& path, GroupLimits& limits) {
  const std::vector<std::string> words = FirstLine(path);
  int64_t bytes = 0;
  if (words.size() == 1 && absl::SimpleAtoi(words[0], &bytes) && bytes > 0 &&
      bytes < kNoLimit) {
    Lower(limits.memory_bytes, bytes);
  }
}

void LowerProcessors(const std::vector<std::string>& quota_and_period,
                     GroupLimits& limits) {
  double quota = 0, period = 0;
  if (quota_and_period.size() == 2 &&
      absl::SimpleAtod(quota_and_period[0], &quota) &&
      absl::SimpleAtod(quota_and_period[1], &period) && quota > 0 &&
      period > 0) {
    Lower(limits.processors, quota / period);
  }
}

void LowerByGroupOfVersion2(const std::string& group, GroupLimits& limits) {
  LowerMemory(group + "/memory.max", limits);
  // Above this one a process is slowed down until it hardly moves.
  LowerMemory(group + "/memory.high", limits);
  LowerProcessors(FirstLine(group + "/cpu.max"), limits);
}

void LowerByMemoryGroup(const std::string& group, GroupLimits& limits) {
  LowerMemory(group + "/memory.limit_in_bytes", limits);
}

void LowerByProcessorGroup(const std::string& group, GroupLimits& limits) {
  std::vector<std::string> words = FirstLine(group + "/cpu.cfs_quota_us");
  const std::vector<std::string> period =
      FirstLine(group + "/cpu.cfs_period_us");
  words.insert(words.end(), period.begin(), period.end());
  LowerProcessors(words, limits);
}

// A line of /proc/self/mountinfo.
struct Mount {
  std::string root;  // the group that lies at `point`
  std::string point;
  std::string type;
  std::string options;  // of the file system
};

std::vector<Mount> Mounts(const std::string& root) {
  std::vector<Mount> mounts;
  for (const std::string& line : Lines(root + "/proc/self/mountinfo")) {
    const std::vector<std::string> words = Words(line);
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (dash - words.begin() < 5 || words.end() - dash < 4) continue;
    mounts.push_back({words[3], words[4], dash[1], dash[3]});
  }
  return mounts;
}

// Whether a list separated by commas has the word.
bool Lists(const std::string& list, const std::string& word) {
  const std::vector<std::string> words = absl::StrSplit(list, ',');
  return std::find(words.begin(), words.end(), word) != words.end();
}

// Calls `visit` with the folder of the process's group `path`, then of each
// group above it, up to what is mounted.
void ForEachGroup(const std::string& root, const Mount& mount,
                  const std::string& path,
                  const std::function<void(const std::string&)>& visit) {
  // Where the process sees other groups than those that hold it, as in some
  // containers, the mounted one is the nearest that can be seen.
  std::string below;
  const std::string prefix = mount.root == "/" ? "" : mount.root;
  if (path.starts_with(prefix + "/") && path.find("/..") == std::string::npos) {
    below = path.substr(prefix.size());
  }
  while (!below.empty() && below.back() == '/') below.pop_back();
  while (true) {
    visit(root + mount.point + below);
    if (below.empty()) return;
    below.resize(below.rfind('/'));
  }
}

}  // namespace

GroupLimits LimitsOfControlGroups(const std::string& root) {
  GroupLimits limits;
  const std::vector<Mount> mounts = Mounts(root);
  for (const std::string& line : Lines(root + "/proc/self/cgroup")) {
    // "0::/group" of version 2, "4:cpu,cpuacct:/group" of version 1.
    const std::vector<std::string> parts =
        absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const std::string& controllers = parts[1];
    const std::string& path = parts[2];
    for (const Mount& mount : mounts) {
      if (controllers.empty() && mount.type == "cgroup2") {
        ForEachGroup(root, mount, path, [&](const std::string& group) {
          LowerByGroupOfVersion2(group, limits);
        });
      }
      if (mount.type != "cgroup") continue;
      for (const auto& [controller, lower] :
           {std::pair("memory", &LowerByMemoryGroup),
            std::pair("cpu", &LowerByProcessorGroup)}) {
        if (!Lists(controllers, controller) ||
            !Lists(mount.options, controller)) {
          continue;
        }
        ForEachGroup(root, mount, path,
                     [&](const std::string& group) { lower(group, limits); });
      }
    }
  }
  return limits;
}

}  // namespace trireme
