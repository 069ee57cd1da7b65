// Answers Prometheus: HTTP, GET /metrics, nothing else.

#ifndef TRIREME_TRAINER_COORDINATOR_METRICS_SERVER_H_
#define TRIREME_TRAINER_COORDINATOR_METRICS_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

namespace trireme {

class MetricsServer {
 public:
  // `listen`: "ADDRESS:PORT" of IPv4, port 0 for any free one. `text` is called
  // from the server's thread. Who reaches the address reads the metrics. Each
  // client has two seconds to ask and two to read, beside the others, who are
  // at most 512. Errors: an address that cannot be listened at.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(
      const std::string& listen, std::function<std::string()> text);
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  const std::string& endpoint() const { return endpoint_; }

 private:
  MetricsServer(int socket, int ending, std::string endpoint,
                std::function<std::string()> text);
  void Run();

  class Client;

  const int socket_;
  const int ending_;  // an eventfd
  const std::string endpoint_;
  const std::function<std::string()> text_;
  std::thread thread_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_COORDINATOR_METRICS_SERVER_H_
