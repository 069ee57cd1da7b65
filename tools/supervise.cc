#include "tools/supervise.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/processes.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using Clock = JobWatch::Clock;

constexpr std::chrono::milliseconds kTurn(100);

double Seconds(Timeouts::Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

// What the ranks take for "save, then end"; mpirun hands it on to them.
constexpr int kStopSignal = SIGUSR1;

// A process group of its own: the terminal's Ctrl-C is ours to hand on.
absl::StatusOr<pid_t> Start(std::vector<std::string>& command,
                            const SignalQueue& signals, bool hear_us) {
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
    if (!hear_us) prctl(PR_SET_PDEATHSIG, kStopSignal);
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

// One run of mpirun, and what becomes of it.
class Supervision {
 public:
  Supervision(const StartedRanks& ranks, const Timeouts& timeouts,
              JobWatch& watch, const LaunchLog& log)
      : mpirun_(ranks.mpirun),
        taken_up_(ranks.taken_up),
        timeouts_(timeouts),
        watch_(watch),
        log_(log) {
    Note(mpirun_);
    for (const pid_t process : DescendantsOf(mpirun_)) Note(process);
  }

  // SIGTERM, SIGINT, or SIGUSR1 that the time is up.
  void Ask(int signal) {
    if (asked_ != 0 && signal == SIGUSR1) return;
    const int before = std::exchange(asked_, signal);
    // Who is cancelled once its time is up ends for good, but what is being
    // saved is still saved.
    if (before == SIGUSR1) return;
    if (before != 0) return EndRanks();
    // Each way reaches ranks that the other does not.
    (void)watch_.GiveOrder(Order::STOP);
    kill(mpirun_, kStopSignal);
  }

  // What there is to do at this time.
  void Look(Clock::time_point now,
            const std::function<bool(Clock::time_point)>& out_of_reach) {
    // So much passes between two turns only where this process was stopped
    // itself, or starved: then it could not have heard anyone.
    if (now - last_look_ > timeouts_.named) {
      watch_.Excuse(now);
      begin_ = now;
    }
    last_look_ = now;
    if (kill_at_.has_value()) {
      if (now > *kill_at_ || (lost_ && out_of_reach(now))) {
        kill(mpirun_, SIGKILL);
      }
      return;
    }
    for (const RankReport& rank : watch_.NewlySilent(now, timeouts_.named)) {
      log_.Say(fmt::format("{} has been silent for {} s, after step {}",
                           Name(rank), Seconds(timeouts_.named), rank.step()));
    }
    const bool in_vain = out_of_reach(now);
    const std::string reason = WhyGiveUp(now);
    if (reason.empty()) return;
    log_.Say(reason + "; all ranks are ended");
    lost_ = true;
    EndRanks();
    if (in_vain) kill(mpirun_, SIGKILL);
    // They would be given time to end by themselves.
    for (const pid_t process : DescendantsOf(mpirun_)) {
      if (IsStopped(process)) kill(process, SIGKILL);
    }
  }

  // Nothing while mpirun runs; then how it ended, and nothing is left of it.
  std::optional<SupervisedEnd> End() {
    int status = 0;
    if (taken_up_) {
      const auto known = started_.find(mpirun_);
      if (known != started_.end() && StartTicksOf(mpirun_) == known->second) {
        return std::nullopt;
      }
      KillLeft();
      return ResultOf(watch_.AllEnded()           ? 0
                      : watch_.AnyFailedForGood() ? 1
                                                  : kLostUnseen);
    }
    if (waitpid(mpirun_, &status, WNOHANG) != mpirun_) return std::nullopt;
    KillDescendants(timeouts_.kill);
    return ResultOf(WIFEXITED(status) ? WEXITSTATUS(status)
                                      : 128 + WTERMSIG(status));
  }

 private:
  static std::string Name(const RankReport& rank) {
    return fmt::format("rank {} ({}, process {})", rank.rank(), rank.host(),
                       rank.process());
  }

  SupervisedEnd ResultOf(int status) const {
    return {.status = asked_ != 0 ? 128 + asked_
                      : lost_     ? 1
                                  : std::min(status, 255),
            .asked = asked_ != 0,
            .lost = lost_ || status == kLostUnseen};
  }

  // Of what is not this process's own the children are not either.
  void Note(pid_t process) {
    const std::optional<int64_t> ticks = StartTicksOf(process);
    if (ticks.has_value()) started_[process] = *ticks;
  }
  void KillLeft() const {
    for (const auto& [process, ticks] : started_) {
      if (StartTicksOf(process) == ticks) kill(process, SIGKILL);
    }
  }

  void EndRanks() {
    if (kill_at_.has_value()) return;
    kill(mpirun_, SIGTERM);
    // One that is stopped does not hear that.
    kill(mpirun_, SIGCONT);
    kill_at_ = Clock::now() + timeouts_.kill;
  }

  // A rank may be stopped before it has reported.
  std::string WhoIsStopped(Clock::time_point now) {
    if (IsStopped(mpirun_)) return "mpirun is stopped";
    for (const pid_t process : DescendantsOf(mpirun_)) {
      Note(process);
      if (!IsStopped(process)) continue;
      const JobStatus status = watch_.Status(now);
      for (const RankStatus& rank : status.ranks()) {
        if (rank.report().host() == host_ &&
            rank.report().process() == process) {
          return Name(rank.report()) + " is lost: it is stopped";
        }
      }
      return fmt::format("process {} of a rank that starts is stopped",
                         process);
    }
    return "";
  }

  // Empty: there is no reason to.
  std::string WhyGiveUp(Clock::time_point now) {
    if (now - last_processes_look_ >= timeouts_.look) {
      last_processes_look_ = now;
      const std::string stopped = WhoIsStopped(now);
      if (!stopped.empty()) return stopped;
    }
    if (timeouts_.lost.count() > 0) {
      for (const RankReport& rank : watch_.SilentFor(now, timeouts_.lost)) {
        return fmt::format("{} is lost: it has been silent for {} s",
                           Name(rank), Seconds(timeouts_.lost));
      }
    }
    const std::optional<Clock::duration> all = watch_.AllSilentFor(now);
    // A rank that dies in the middle of MPI_Init may leave mpirun waiting.
    if (!all.has_value() && timeouts_.start.count() > 0 &&
        now - begin_ > timeouts_.start) {
      return fmt::format(
          "no rank has reported for {} s since they were started",
          Seconds(timeouts_.start));
    }
    if (all.has_value() && *all > timeouts_.all) {
      return fmt::format("no rank has reported for {} s, but mpirun goes on",
                         Seconds(timeouts_.all));
    }
    return "";
  }

  // Above what any process ends with.
  static constexpr int kLostUnseen = 1000;

  const pid_t mpirun_;
  const bool taken_up_;
  // mpirun and what it started here, by process, with StartTicksOf each.
  std::map<pid_t, int64_t> started_;
  const Timeouts timeouts_;
  const std::string host_ = HostName();
  JobWatch& watch_;
  const LaunchLog& log_;
  int asked_ = 0;  // the signal that counts
  bool lost_ = false;
  std::optional<Clock::time_point> kill_at_;
  // Since then a first report is waited for.
  Clock::time_point begin_ = Clock::now();
  Clock::time_point last_look_ = Clock::now();
  Clock::time_point last_processes_look_ = Clock::now();
};

}  // namespace

SignalQueue::SignalQueue() {
  sigemptyset(&signals_);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1, SIGCHLD}) {
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

absl::StatusOr<StartedRanks> StartRanks(std::vector<std::string> mpirun,
                                        const Environment& environment,
                                        const SignalQueue& signals,
                                        bool hear_us) {
  for (const auto& [name, value] : environment) {
    setenv(name.c_str(), value.c_str(), /*overwrite=*/0);
  }
  AdoptOrphans();
  ASSIGN_OR_RETURN(const pid_t child, Start(mpirun, signals, hear_us));
  return StartedRanks{.mpirun = child};
}

SupervisedEnd Supervise(
    const StartedRanks& ranks, const SignalQueue& signals,
    const Timeouts& timeouts, JobWatch& watch, const LaunchLog& log,
    const std::function<void()>& on_training,
    const std::function<bool(JobWatch::Clock::time_point)>& out_of_reach) {
  Supervision supervision(ranks, timeouts, watch, log);
  bool trained = false;
  for (;;) {
    const int signal = signals.Next(kTurn);
    if (signal != 0 && signal != SIGCHLD) supervision.Ask(signal);
    if (!trained && watch.Training()) {
      trained = true;
      on_training();
    }
    const std::optional<SupervisedEnd> end = supervision.End();
    if (end.has_value()) return *end;
    supervision.Look(Clock::now(), out_of_reach);
  }
}

}  // namespace trireme
