// Logging and invariant checks with the macro names of absl/log (which the
// Debian 12 release of Abseil does not have yet).
//
// CHECK is for programming errors only: it prints file, line, the failed
// condition, the streamed message and a stack trace, then aborts. Whatever a
// user can cause (files, configurations, networks, plans) is an absl::Status.
//
// Lines go to standard error as `I 12:34:56.789 [rank 2] file.cc:10] text`, one
// write per line, so that ranks do not interleave within a line.

#ifndef TRIREME_RUNTIME_CORE_LOG_H_
#define TRIREME_RUNTIME_CORE_LOG_H_

#include <ostream>
#include <sstream>
#include <string>

#include "absl/status/status.h"

namespace trireme {

enum class LogSeverity { INFO, WARNING, ERROR, FATAL };

// One log line under construction; written when it is destroyed. A FATAL line
// adds a stack trace and aborts the process.
class LogMessage {
 public:
  LogMessage(const char* file, int line, LogSeverity severity);
  ~LogMessage();
  LogMessage(const LogMessage&) = delete;
  LogMessage& operator=(const LogMessage&) = delete;

  std::ostream& stream() { return stream_; }

 private:
  const char* file_;
  int line_;
  LogSeverity severity_;
  std::ostringstream stream_;
};

// Gives both arms of the conditional in CHECK the type void.
struct LogVoidify {
  void operator&(const std::ostream&) const {}
};

template <typename A, typename B>
std::string CheckOperandsText(const A& a, const B& b) {
  std::ostringstream text;
  text << " (" << a << " vs. " << b << ") ";
  return text.str();
}

}  // namespace trireme

#define LOG(severity)                                                         \
  ::trireme::LogMessage(__FILE__, __LINE__, ::trireme::LogSeverity::severity) \
      .stream()

#define CHECK(condition)                  \
  (condition) ? (void)0                   \
              : ::trireme::LogVoidify() & \
                    LOG(FATAL) << "Check failed: " #condition " "

#define TRIREME_CHECK_OP(a, b, op)                 \
  while (!((a)op(b)))                              \
  LOG(FATAL) << "Check failed: " #a " " #op " " #b \
             << ::trireme::CheckOperandsText((a), (b))

#define CHECK_EQ(a, b) TRIREME_CHECK_OP(a, b, ==)
#define CHECK_NE(a, b) TRIREME_CHECK_OP(a, b, !=)
#define CHECK_LT(a, b) TRIREME_CHECK_OP(a, b, <)
#define CHECK_LE(a, b) TRIREME_CHECK_OP(a, b, <=)
#define CHECK_GT(a, b) TRIREME_CHECK_OP(a, b, >)
#define CHECK_GE(a, b) TRIREME_CHECK_OP(a, b, >=)

#define CHECK_OK(expression)                               \
  if (const ::absl::Status check_ok_status = (expression); \
      check_ok_status.ok()) {                              \
  } else                                                   \
    LOG(FATAL) << "Check failed: " #expression " is OK ("  \
               << check_ok_status.ToString() << ") "

#endif  // TRIREME_RUNTIME_CORE_LOG_H_
