// Whether processes can be started on machines, asked beside other work: each
// question is an mpirun that runs `true` on one of them, which is what a launch
// does there.

#ifndef TRIREME_TOOLS_HOST_QUESTIONS_H_
#define TRIREME_TOOLS_HOST_QUESTIONS_H_

#include <sys/types.h>

#include <chrono>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/core/timeouts.h"

namespace trireme {

class HostQuestions {
 public:
  using Clock = std::chrono::steady_clock;
  struct Answer {
    std::string host;
    // Why no process can be started there; nothing where one was.
    std::optional<std::string> unreachable;
  };

  HostQuestions() = default;
  HostQuestions(const HostQuestions&) = delete;
  HostQuestions& operator=(const HostQuestions&) = delete;
  // Ends the questions that are open.
  ~HostQuestions();

  // Nothing where a question to that machine is open. A few for each processor
  // here run at once, the others wait for their turn; `patience` is that from
  // the beginning of its own.
  void Ask(const std::string& host, Timeouts::Duration patience);
  bool IsAsking(const std::string& host) const { return open_.contains(host); }
  // Hears those that have answered, gives up those that have not in their time,
  // and begins others: to be called until the answers are there.
  std::vector<Answer> Hear();

 private:
  struct Question {
    Timeouts::Duration patience;
    Clock::time_point begin = {};
    pid_t process = -1;
    // What mpirun says; -1 before the question's turn.
    int output = -1;
    std::string said = {};
  };

  static void Begin(const std::string& host, Question& question);
  // Nothing while it may still be answered.
  static std::optional<Answer> AnswerOf(const std::string& host,
                                        Question& question);

  std::map<std::string, Question> open_;
  std::deque<std::string> waiting_;
};

// The machines whose ranks are silent, asked again and again while they are, so
// that it is known who is gone when the silence has lasted for too long.
class SilentHosts {
 public:
  explicit SilentHosts(const Timeouts& timeouts) : timeouts_(timeouts) {}

  // `silent`: whose ranks have been silent for `timeouts.named` by now. To be
  // called several times a second.
  void Look(const std::set<std::string>& silent,
            HostQuestions::Clock::time_point now);
  // Those that were asked for at least `timeouts.reach` by the last look and
  // have not answered since.
  std::set<std::string> Unanswered() const;

 private:
  struct Host {
    // Of the first question since the last answer.
    std::optional<HostQuestions::Clock::time_point> asked_since;
    HostQuestions::Clock::time_point next = {};
  };

  const Timeouts timeouts_;
  HostQuestions questions_;
  std::map<std::string, Host> silent_;
  HostQuestions::Clock::time_point now_ = {};
};

}  // namespace trireme

#endif  // TRIREME_TOOLS_HOST_QUESTIONS_H_
