#include "tools/supervise.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "fmt/format.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Clock = JobWatch::Clock;

constexpr std::chrono::milliseconds kLook(200);
// Ranks report every 0.3 s.
constexpr std::chrono::seconds kSilent(3);
// A machine that swaps may keep all of them from it for a while.
constexpr std::chrono::seconds kAllSilent(15);
constexpr std::chrono::seconds kBeforeKilling(5);

// What the ranks take for "save, then end"; mpirun hands it on to them.
constexpr int kStopSignal = SIGUSR1;

// A process group of its own: the terminal's Ctrl-C is ours to hand on.
absl::StatusOr<pid_t> Start(std::vector<std::string>& command,
                            const SignalQueue& signals) {
  std::vector<char*> raw;
  for (std::string& part : command) raw.push_back(part.data());
  raw.push_back(nullptr);
  // What fails in the child is told through it.
  std::array<int, 2> pipe{};
  if (pipe2(pipe.data(), O_CLOEXEC) != 0) {
    return Unavailable("cannot make a pipe: {}", std::strerror(errno));
  }
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, kStopSignal);
    const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(nothing, STDIN_FILENO);
    pthread_sigmask(SIG_SETMASK, &signals.before(), nullptr);
    if (getppid() == parent) execvp(raw[0], raw.data());
    const int error = errno;
    [[maybe_unused]] const ssize_t told = write(pipe[1], &error, sizeof(error));
    _exit(127);
  }
  close(pipe[1]);
  int error = child < 0 ? errno : 0;
  const bool failed =
      child < 0 || read(pipe[0], &error, sizeof(error)) == sizeof(error);
  close(pipe[0]);
  if (!failed) return child;
  if (child > 0) waitpid(child, nullptr, 0);
  return Unavailable("cannot run {}: {}; expected OpenMPI's mpirun on the PATH",
                     command[0], std::strerror(error));
}

}  // namespace

SignalQueue::SignalQueue() {
  sigemptyset(&signals_);
  for (const int signal : {SIGTERM, SIGINT, SIGCHLD}) {
    sigaddset(&signals_, signal);
  }
  pthread_sigmask(SIG_BLOCK, &signals_, &before_);
  descriptor_ = signalfd(-1, &signals_, SFD_CLOEXEC | SFD_NONBLOCK);
}

SignalQueue::~SignalQueue() {
  close(descriptor_);
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

int SignalQueue::Next(std::chrono::milliseconds wait) const {
  pollfd look{.fd = descriptor_, .events = POLLIN, .revents = 0};
  if (poll(&look, 1, static_cast<int>(wait.count())) <= 0) return 0;
  signalfd_siginfo info{};
  if (read(descriptor_, &info, sizeof(info)) != sizeof(info)) return 0;
  return static_cast<int>(info.ssi_signo);
}

absl::StatusOr<SupervisedEnd> Supervise(std::vector<std::string> mpirun,
                                        const Environment& environment,
                                        const SignalQueue& signals,
                                        std::chrono::seconds lost_after,
                                        JobWatch& watch) {
  for (const auto& [name, value] : environment) {
    setenv(name.c_str(), value.c_str(), /*overwrite=*/0);
  }
  ASSIGN_OR_RETURN(const pid_t child, Start(mpirun, signals));
  int asked = 0;  // the first signal
  bool given_up = false;
  std::optional<Clock::time_point> kill_at;
  const auto end = [&] {
    if (kill_at.has_value()) return;
    kill(child, SIGTERM);
    kill_at = Clock::now() + kBeforeKilling;
  };
  for (;;) {
    const int signal = signals.Next(kLook);
    if (signal == SIGTERM || signal == SIGINT) {
      if (asked == 0) {
        asked = signal;
        kill(child, kStopSignal);
      } else {
        end();
      }
    }
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) {
      const int own =
          WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      return SupervisedEnd{.status = asked != 0 ? 128 + asked
                                     : given_up ? 1
                                                : own,
                           .asked = asked != 0,
                           .lost = given_up};
    }
    const Clock::time_point now = Clock::now();
    for (const RankReport& rank : watch.NewlySilent(now, kSilent)) {
      fmt::print(stderr,
                 "trireme launch: rank {} ({}, process {}) has been silent for "
                 "{} s, after step {}\n",
                 rank.rank(), rank.host(), rank.process(), kSilent.count(),
                 rank.step());
    }
    if (kill_at.has_value()) {
      if (now > *kill_at) kill(-child, SIGKILL);
      continue;
    }
    const std::optional<Clock::duration> silent = watch.AllSilentFor(now);
    const std::optional<RankReport> lost =
        lost_after.count() > 0 ? watch.AnySilentFor(now, lost_after)
                               : std::nullopt;
    if (lost.has_value()) {
      fmt::print(
          stderr,
          "trireme launch: rank {} on {} is lost: it has been silent for "
          "{} s; all ranks are ended\n",
          lost->rank(), lost->host(), lost_after.count());
    } else if (silent.has_value() && *silent > kAllSilent) {
      fmt::print(stderr,
                 "trireme launch: no rank has reported for {} s, but mpirun "
                 "goes on: it is ended\n",
                 kAllSilent.count());
    } else {
      continue;
    }
    given_up = true;
    end();
  }
}

}  // namespace trireme
