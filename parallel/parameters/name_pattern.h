// Patterns of the names of layers and parameters.

#ifndef TRIREME_PARALLEL_PARAMETERS_NAME_PATTERN_H_
#define TRIREME_PARALLEL_PARAMETERS_NAME_PATTERN_H_

#include <fnmatch.h>

#include <algorithm>
#include <string>
#include <vector>

namespace trireme {

// Whether `name` is of `pattern`, in which * stands for any characters
// (fnmatch(3)).
inline bool Matches(const std::string& pattern, const std::string& name) {
  return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

inline bool MatchesAny(const std::vector<std::string>& patterns,
                       const std::string& name) {
  return std::any_of(
      patterns.begin(), patterns.end(),
      [&](const std::string& pattern) { return Matches(pattern, name); });
}

}  // namespace trireme

#endif  // TRIREME_PARALLEL_PARAMETERS_NAME_PATTERN_H_
