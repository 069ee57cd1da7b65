// Accepting connections for a server that goes on with them, whatever others
// do: gRPC's own listener stops for good once no more files may be open.

#ifndef TRIREME_TRAINER_COORDINATOR_LISTENER_H_
#define TRIREME_TRAINER_COORDINATOR_LISTENER_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"

namespace trireme {

class Listener {
 public:
  // `address`: "HOST:PORT"; of a name whatever it stands for on this machine,
  // port 0: any free one. Errors: one that cannot be listened at.
  static absl::StatusOr<std::unique_ptr<Listener>> Open(
      const std::string& address);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  int port() const { return port_; }

  // Calls `take` with each new connection, a socket that does not block and is
  // the callee's, from a thread of its own until destroyed. While no more files
  // may be open, who connects waits. Once.
  void Start(std::function<void(int socket)> take);

 private:
  Listener();

  void Run(const std::function<void(int socket)>& take);

  const int ending_;
  std::vector<int> sockets_;
  int port_ = 0;
  std::thread thread_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_COORDINATOR_LISTENER_H_
