#include "runtime/core/limited_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <exception>
#include <fstream>
#include <mutex>
#include <new>
#include <string_view>
#include <thread>

#include "runtime/core/status.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;

// The address space of this process, in bytes.
int64_t AddressSpace() {
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

// What goes beyond `soft` processor time is told so by SIGXCPU, beyond `hard`
// it is killed; other resources have one limit.
void Limit(int resource, int64_t soft, int64_t hard) {
  const rlimit limit{static_cast<rlim_t>(soft), static_cast<rlim_t>(hard)};
  setrlimit(static_cast<__rlimit_resource>(resource), &limit);
}

void WriteAll(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(descriptor, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
}

absl::StatusOr<std::string> Guarded(
    const std::function<absl::StatusOr<std::string>()>& work,
    int64_t memory_bytes) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("it takes more than {} MiB of memory",
                             memory_bytes >> 20);
  } catch (const std::exception& error) {
    return DataLoss("{}", error.what());
  }
}

// Never returns. The answer: the status's code in one byte, then the result or
// the message.
[[noreturn]] void RunChild(
    const std::function<absl::StatusOr<std::string>()>& work,
    const ProcessLimits& limits, int64_t address_space, int pipe) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // Handlers of the parent would report the child's crash as the parent's.
  for (const int signal :
       {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGTERM, SIGINT, SIGXCPU}) {
    std::signal(signal, SIG_DFL);
  }
  const int nowhere = open("/dev/null", O_RDWR);
  for (const int standard : {0, 1, 2}) dup2(nowhere, standard);
  Limit(RLIMIT_CORE, 0, 0);
  Limit(RLIMIT_FSIZE, 0, 0);
  const auto seconds = static_cast<int64_t>(std::ceil(limits.seconds));
  Limit(RLIMIT_CPU, seconds, seconds + 1);
  const int64_t memory = address_space + limits.memory_bytes;
  Limit(RLIMIT_AS, memory, memory);
  const absl::StatusOr<std::string> result = Guarded(work, limits.memory_bytes);
  const std::string message = result.ok() ? "" : MessageOf(result.status());
  const char code = static_cast<char>(result.status().code());
  WriteAll(pipe, {&code, 1});
  WriteAll(pipe, result.ok() ? *result : message);
  _exit(0);
}

// Reads to the end. Errors: longer than most, not ended by the deadline.
absl::StatusOr<std::string> ReadAnswer(int pipe, Clock::time_point deadline,
                                       const ProcessLimits& limits) {
  std::string answer;
  std::array<char, 1 << 16> buffer;
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - Clock::now());
    pollfd waiting{pipe, POLLIN, 0};
    const int ready =
        left.count() <= 0
            ? 0
            : poll(&waiting, 1,
                   static_cast<int>(std::min<int64_t>(left.count(), 60000)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0 && Clock::now() >= deadline) {
      return ResourceExhausted("it takes longer than {:g} s", limits.seconds);
    }
    if (ready <= 0) continue;
    const ssize_t count = read(pipe, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Internal("cannot read: {}", std::strerror(errno));
    if (count == 0) return answer;
    answer.append(buffer.data(), static_cast<size_t>(count));
    if (static_cast<int64_t>(answer.size()) > limits.max_result_bytes + 1) {
      return ResourceExhausted("a result of more than {} bytes",
                               limits.max_result_bytes);
    }
  }
}

// How the child ended. One that closed its pipe and goes on has until the
// deadline. Errors: it had to be killed.
absl::StatusOr<int> AwaitEnd(pid_t child, Clock::time_point deadline,
                             const ProcessLimits& limits) {
  int how = 0;
  while (Clock::now() < deadline) {
    const pid_t ended = waitpid(child, &how, WNOHANG);
    // Where this process ignores SIGCHLD, the system says nothing of the end.
    if (ended == child || (ended < 0 && errno != EINTR)) return how;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  kill(child, SIGKILL);
  while (waitpid(child, &how, 0) < 0 && errno == EINTR) {
  }
  return ResourceExhausted("it takes longer than {:g} s", limits.seconds);
}

// Signals that come from people, and from a system that is out of memory, not
// of what the work does.
bool ComesFromOutside(int signal) {
  return signal == SIGKILL || signal == SIGTERM || signal == SIGINT ||
         signal == SIGHUP;
}

}  // namespace

absl::StatusOr<std::string> RunLimited(
    const std::function<absl::StatusOr<std::string>()>& work,
    const ProcessLimits& limits) {
  const auto deadline =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(
                         std::chrono::duration<double>(limits.seconds));
  // Before the fork: another thread may be reading a stream just then.
  const int64_t address_space = AddressSpace();
  std::array<int, 2> pipes{};
  pid_t child = -1;
  int fork_error = 0;
  {
    // A child of another thread that had a copy of this pipe's end would keep
    // it open after this child's end.
    static std::mutex forking;
    const std::lock_guard lock(forking);
    if (pipe2(pipes.data(), O_CLOEXEC) != 0) {
      return Internal("cannot make a pipe: {}", std::strerror(errno));
    }
    child = fork();
    if (child == 0) {
      close(pipes[0]);
      RunChild(work, limits, address_space, pipes[1]);
    }
    fork_error = errno;
    close(pipes[1]);
  }
  if (child < 0) {
    close(pipes[0]);
    return Internal("cannot start a process: {}", std::strerror(fork_error));
  }
  const absl::StatusOr<std::string> answer =
      ReadAnswer(pipes[0], deadline, limits);
  close(pipes[0]);
  const absl::StatusOr<int> end =
      AwaitEnd(child, answer.ok() ? deadline : Clock::now(), limits);
  if (!answer.ok()) return answer;
  ASSIGN_OR_RETURN(const int how, end);
  if (WIFSIGNALED(how) && WTERMSIG(how) == SIGXCPU) {
    return ResourceExhausted("it takes longer than {:g} s", limits.seconds);
  }
  if (WIFSIGNALED(how) && ComesFromOutside(WTERMSIG(how))) {
    return Unavailable("the process that reads it was ended by others ({})",
                       strsignal(WTERMSIG(how)));
  }
  if (WIFSIGNALED(how) || answer->empty()) {
    return DataLoss(
        "reading it ends in a crash ({})",
        WIFSIGNALED(how) ? strsignal(WTERMSIG(how)) : "without an answer");
  }
  const auto code = static_cast<absl::StatusCode>((*answer)[0]);
  if (code == absl::StatusCode::kOk) return answer->substr(1);
  return absl::Status(code, answer->substr(1));
}

}  // namespace trireme
