// A process that may open few files more.

#ifndef TRIREME_TRAINER_COORDINATOR_FEW_FILES_TESTING_H_
#define TRIREME_TRAINER_COORDINATOR_FEW_FILES_TESTING_H_

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "runtime/core/log.h"

namespace trireme {

// While it lives, no more than `count` files can be opened.
class FewFiles {
 public:
  explicit FewFiles(int count) {
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
    // The lowest that is free.
    const int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK_GE(next, 0);
    close(next);
    rlimit few = before_;
    few.rlim_cur = next + count;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  }
  ~FewFiles() { setrlimit(RLIMIT_NOFILE, &before_); }
  FewFiles(const FewFiles&) = delete;
  FewFiles& operator=(const FewFiles&) = delete;

 private:
  rlimit before_{};
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_COORDINATOR_FEW_FILES_TESTING_H_
