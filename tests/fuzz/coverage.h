// How much of a program has run, where that was built to tell: with
// -fsanitize-coverage=trace-pc each of its basic blocks calls a function of
// this file's (bazel build --config=fuzz).

#ifndef TRIREME_TESTS_FUZZ_COVERAGE_H_
#define TRIREME_TESTS_FUZZ_COVERAGE_H_

#include <cstdint>

namespace trireme {

// Different blocks that have run so far; 0: the program does not tell.
int64_t BlocksReached();

}  // namespace trireme

#endif  // TRIREME_TESTS_FUZZ_COVERAGE_H_
