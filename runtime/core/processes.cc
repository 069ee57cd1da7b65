#include "runtime/core/processes.h"

#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "fmt/format.h"

namespace trireme {
namespace {

constexpr std::chrono::milliseconds kBetweenLooks(20);

struct ProcessStat {
  char state = 0;
  pid_t parent = 0;
  int64_t start_ticks = 0;
};

// Of proc(5)'s /proc/PID/stat; nothing where the process is gone.
std::optional<ProcessStat> StatOf(pid_t process) {
  const auto close_file = [](FILE* file) { fclose(file); };
  const std::unique_ptr<FILE, decltype(close_file)> file(
      fopen(fmt::format("/proc/{}/stat", process).c_str(), "re"), close_file);
  if (file == nullptr) return std::nullopt;
  char text[512] = {};
  const size_t length = fread(text, 1, sizeof(text) - 1, file.get());
  text[length] = 0;
  // The program's name, in parentheses, may hold any character.
  const char* const after_name = std::strrchr(text, ')');
  ProcessStat stat;
  // Between the parent and the start lie 17 other fields.
  if (after_name == nullptr ||
      std::sscanf(after_name,
                  ") %c %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                  "%*s %*s %*s %*s %" SCNd64,
                  &stat.state, &stat.parent, &stat.start_ticks) != 3) {
    return std::nullopt;
  }
  return stat;
}

}  // namespace

std::string HostName() {
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '?';
  return host.data();
}

bool IsStopped(pid_t process) {
  const std::optional<ProcessStat> stat = StatOf(process);
  return stat.has_value() && stat->state == 'T';
}

std::optional<int64_t> StartTicksOf(pid_t process) {
  const std::optional<ProcessStat> stat = StatOf(process);
  if (!stat.has_value() || stat->state == 'Z') return std::nullopt;
  return stat->start_ticks;
}

std::vector<pid_t> DescendantsOf(pid_t ancestor) {
  const auto close_folder = [](DIR* folder) { closedir(folder); };
  const std::unique_ptr<DIR, decltype(close_folder)> folder(opendir("/proc"),
                                                            close_folder);
  std::vector<std::pair<pid_t, pid_t>> parents;  // of each process
  if (folder == nullptr) return {};
  while (const dirent* entry = readdir(folder.get())) {
    const pid_t process = std::atoi(entry->d_name);
    if (process <= 0) continue;
    const std::optional<ProcessStat> stat = StatOf(process);
    // What is dead waits for its parent only.
    if (stat.has_value() && stat->state != 'Z') {
      parents.emplace_back(process, stat->parent);
    }
  }
  std::vector<pid_t> found;
  std::vector<pid_t> open = {ancestor};
  while (!open.empty()) {
    const pid_t parent = open.back();
    open.pop_back();
    for (const auto& [process, of] : parents) {
      if (of != parent) continue;
      found.push_back(process);
      open.push_back(process);
    }
  }
  return found;
}

void AdoptOrphans() { prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }

void KillDescendants(std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  for (;;) {
    const std::vector<pid_t> left = DescendantsOf(getpid());
    for (const pid_t process : left) kill(process, SIGKILL);
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    if (left.empty() || std::chrono::steady_clock::now() > end) return;
    std::this_thread::sleep_for(kBetweenLooks);
  }
}

int64_t AllowOpenFiles(int64_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur =
      std::min(std::max(before, static_cast<rlim_t>(wanted)), limit.rlim_max);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  return static_cast<int64_t>(
      std::min(limit.rlim_cur, static_cast<rlim_t>(INT64_MAX)));
}

}  // namespace trireme
