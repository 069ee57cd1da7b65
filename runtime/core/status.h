// Status helpers: error makers that format with fmt, and the two propagation
// macros. Errors say what was found and what was expected; whoever reads a
// file adds its name and line.

#ifndef TRIREME_RUNTIME_CORE_STATUS_H_
#define TRIREME_RUNTIME_CORE_STATUS_H_

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"

namespace trireme {

template <typename... Args>
absl::Status StatusOf(absl::StatusCode code, fmt::format_string<Args...> format,
                      Args&&... args) {
  return absl::Status(code, fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
absl::Status InvalidArgument(fmt::format_string<Args...> format,
                             Args&&... args) {
  return StatusOf(absl::StatusCode::kInvalidArgument, format,
                  std::forward<Args>(args)...);
}

template <typename... Args>
absl::Status NotFound(fmt::format_string<Args...> format, Args&&... args) {
  return StatusOf(absl::StatusCode::kNotFound, format,
                  std::forward<Args>(args)...);
}

template <typename... Args>
absl::Status Internal(fmt::format_string<Args...> format, Args&&... args) {
  return StatusOf(absl::StatusCode::kInternal, format,
                  std::forward<Args>(args)...);
}

template <typename... Args>
absl::Status ResourceExhausted(fmt::format_string<Args...> format,
                               Args&&... args) {
  return StatusOf(absl::StatusCode::kResourceExhausted, format,
                  std::forward<Args>(args)...);
}

template <typename... Args>
absl::Status FailedPrecondition(fmt::format_string<Args...> format,
                                Args&&... args) {
  return StatusOf(absl::StatusCode::kFailedPrecondition, format,
                  std::forward<Args>(args)...);
}

template <typename... Args>
absl::Status Unavailable(fmt::format_string<Args...> format, Args&&... args) {
  return StatusOf(absl::StatusCode::kUnavailable, format,
                  std::forward<Args>(args)...);
}

template <typename... Args>
absl::Status DataLoss(fmt::format_string<Args...> format, Args&&... args) {
  return StatusOf(absl::StatusCode::kDataLoss, format,
                  std::forward<Args>(args)...);
}

template <typename... Args>
absl::Status OutOfRange(fmt::format_string<Args...> format, Args&&... args) {
  return StatusOf(absl::StatusCode::kOutOfRange, format,
                  std::forward<Args>(args)...);
}

template <typename... Args>
absl::Status Unimplemented(fmt::format_string<Args...> format, Args&&... args) {
  return StatusOf(absl::StatusCode::kUnimplemented, format,
                  std::forward<Args>(args)...);
}

// The message of a status as a std::string (Abseil's view type differs).
inline std::string MessageOf(const absl::Status& status) {
  return std::string(status.message().data(), status.message().size());
}

// Puts `context` before the message, keeping the code: "reading job.textproto:
// ...". OK stays OK.
inline absl::Status WithContext(const absl::Status& status,
                                std::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      fmt::format("{}: {}", context, MessageOf(status)));
}

}  // namespace trireme

#define RETURN_IF_ERROR(expression)                             \
  do {                                                          \
    if (::absl::Status status_ = (expression); !status_.ok()) { \
      return status_;                                           \
    }                                                           \
  } while (false)

#define TRIREME_CONCATENATE_(a, b) a##b
#define TRIREME_CONCATENATE(a, b) TRIREME_CONCATENATE_(a, b)

#define TRIREME_ASSIGN_OR_RETURN(result, lhs, expression) \
  auto result = (expression);                             \
  if (!result.ok()) return result.status();               \
  lhs = *std::move(result)

#define ASSIGN_OR_RETURN(lhs, expression)                                  \
  TRIREME_ASSIGN_OR_RETURN(TRIREME_CONCATENATE(status_or_, __LINE__), lhs, \
                           expression)

#endif  // TRIREME_RUNTIME_CORE_STATUS_H_
