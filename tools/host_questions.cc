#include "tools/host_questions.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "runtime/core/processors.h"

namespace trireme {
namespace {

// What a pipe holds: all that an ended process has left in it.
constexpr size_t kMostReasonBytes = 64 << 10;
constexpr char kNoMpirun[] =
    "cannot run mpirun; expected OpenMPI's mpirun on the PATH\n";
// More of them at once would take longer than they are given.
constexpr size_t kMostPerProcessor = 4;

// The first line of what mpirun says that says something.
std::string FirstLine(const std::string& text) {
  for (const auto line : absl::StrSplit(text, '\n')) {
    const std::string stripped(absl::StripAsciiWhitespace(line));
    if (!stripped.empty() && stripped.find_first_not_of('-') != stripped.npos) {
      return stripped;
    }
  }
  return "mpirun ended without a word";
}

// With what it started: its agent may wait for a machine for minutes.
void KillGroup(pid_t process) {
  // Whoever ended it (KillDescendants) may have set its number free.
  if (waitpid(process, nullptr, WNOHANG) != 0) return;
  kill(-process, SIGKILL);
  waitpid(process, nullptr, 0);
}

}  // namespace

HostQuestions::~HostQuestions() {
  for (const auto& [host, question] : open_) {
    if (question.output < 0) continue;
    KillGroup(question.process);
    close(question.output);
  }
}

void HostQuestions::Ask(const std::string& host, Timeouts::Duration patience) {
  if (open_.try_emplace(host, Question{.patience = patience}).second) {
    waiting_.push_back(host);
  }
}

std::vector<HostQuestions::Answer> HostQuestions::Hear() {
  std::vector<Answer> answers;
  for (auto entry = open_.begin(); entry != open_.end();) {
    auto& [host, question] = *entry;
    std::optional<Answer> answer;
    if (question.output >= 0) answer = AnswerOf(host, question);
    if (!answer.has_value()) {
      ++entry;
      continue;
    }
    close(question.output);
    answers.push_back(*std::move(answer));
    entry = open_.erase(entry);
  }
  const size_t at_once = kMostPerProcessor * AvailableProcessors();
  while (!waiting_.empty() && open_.size() - waiting_.size() < at_once) {
    const std::string host = waiting_.front();
    waiting_.pop_front();
    Question& question = open_.at(host);
    Begin(host, question);
    if (question.output >= 0) continue;
    answers.push_back({host, "no process can be started here"});
    open_.erase(host);
  }
  return answers;
}

void HostQuestions::Begin(const std::string& host, Question& question) {
  std::vector<std::string> command = {"mpirun", "-np", "1", "--host",
                                      host + ":1"};
  if (geteuid() == 0) command.emplace_back("--allow-run-as-root");
  command.emplace_back("true");
  std::vector<char*> raw;
  for (std::string& part : command) raw.push_back(part.data());
  raw.push_back(nullptr);
  std::array<int, 2> pipe{};
  if (pipe2(pipe.data(), O_CLOEXEC) != 0) return;
  const pid_t process = fork();
  if (process == 0) {
    setpgid(0, 0);
    const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(nothing, STDIN_FILENO);
    dup2(pipe[1], STDOUT_FILENO);
    dup2(pipe[1], STDERR_FILENO);
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, nullptr);
    execvp(raw[0], raw.data());
    [[maybe_unused]] const ssize_t told =
        write(STDERR_FILENO, kNoMpirun, sizeof(kNoMpirun) - 1);
    _exit(127);
  }
  close(pipe[1]);
  if (process < 0) {
    close(pipe[0]);
    return;
  }
  // Also here: who gives the question up may be faster than the child.
  setpgid(process, process);
  fcntl(pipe[0], F_SETFL, O_NONBLOCK);
  question.begin = Clock::now();
  question.process = process;
  question.output = pipe[0];
}

std::optional<HostQuestions::Answer> HostQuestions::AnswerOf(
    const std::string& host, Question& question) {
  int status = 0;
  const pid_t ended = waitpid(question.process, &status, WNOHANG);
  // All of it: one that has ended is not late, however late it is heard.
  std::array<char, 4096> text{};
  ssize_t count = read(question.output, text.data(), text.size());
  while (count > 0 && question.said.size() < kMostReasonBytes) {
    question.said.append(text.data(), count);
    count = read(question.output, text.data(), text.size());
  }
  if (ended == 0) {
    if (Clock::now() - question.begin <= question.patience) {
      return std::nullopt;
    }
    KillGroup(question.process);
    return Answer{
        host,
        fmt::format("no answer within {} s",
                    std::chrono::duration<double>(question.patience).count())};
  }
  if (ended == question.process && status == 0) return Answer{host, {}};
  return Answer{host, FirstLine(question.said)};
}

void SilentHosts::Look(const std::set<std::string>& silent,
                       HostQuestions::Clock::time_point now) {
  now_ = now;
  for (const HostQuestions::Answer& answer : questions_.Hear()) {
    const auto host = silent_.find(answer.host);
    if (host == silent_.end() || answer.unreachable.has_value()) continue;
    host->second = {.asked_since = {}, .next = now + timeouts_.named};
  }
  std::erase_if(silent_, [&](const auto& entry) {
    return !silent.contains(entry.first);
  });
  for (const std::string& name : silent) {
    Host& host = silent_[name];
    if (!questions_.IsAsking(name)) {
      if (now < host.next) continue;
      questions_.Ask(name, timeouts_.named);
      // An mpirun that fails at once would follow another without a pause.
      host.next = now + timeouts_.named;
    }
    if (!host.asked_since.has_value()) host.asked_since = now;
  }
}

std::set<std::string> SilentHosts::Unanswered() const {
  std::set<std::string> found;
  for (const auto& [name, host] : silent_) {
    if (host.asked_since.has_value() &&
        now_ - *host.asked_since >= timeouts_.reach) {
      found.insert(name);
    }
  }
  return found;
}

}  // namespace trireme
