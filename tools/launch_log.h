// What a launch tells of what happens to its ranks: people read it while it
// runs, and in the run's report.

#ifndef TRIREME_TOOLS_LAUNCH_LOG_H_
#define TRIREME_TOOLS_LAUNCH_LOG_H_

#include <string>

namespace trireme {

class LaunchLog {
 public:
  // `run`: the folder to whose launch.log lines are added, with the time, once
  // it exists.
  explicit LaunchLog(const std::string& run) : path_(run + "/launch.log") {}

  // To standard error, and into the file.
  void Say(const std::string& text) const;

 private:
  const std::string path_;
};

}  // namespace trireme

#endif  // TRIREME_TOOLS_LAUNCH_LOG_H_
