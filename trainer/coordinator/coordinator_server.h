// The coordinator of a job: a gRPC service in the process that launched it.

#ifndef TRIREME_TRAINER_COORDINATOR_COORDINATOR_SERVER_H_
#define TRIREME_TRAINER_COORDINATOR_COORDINATOR_SERVER_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "trainer/coordinator/job_watch.h"
#include "trainer/coordinator/launch_record.h"
#include "trainer/coordinator/listener.h"
#include "trainer/coordinator/tls.h"

namespace grpc {
class Server;
namespace experimental {
class ExternalConnectionAcceptor;
}  // namespace experimental
}  // namespace grpc

namespace trireme {

class CoordinatorServer {
 public:
  // Serves from threads of its own until destroyed. `listen`: a host or address
  // and a port, 0 for any free one; who is to reach it must reach that.
  // `watch` outlives it. A call without the job's token, by default a new one,
  // is refused and told nothing; who connects and does not call is let go. With
  // an identity calls are encrypted, and others are not heard. Errors: an
  // address that cannot be listened at.
  static absl::StatusOr<std::unique_ptr<CoordinatorServer>> Start(
      JobWatch& watch, const std::string& listen,
      std::optional<std::string> token = std::nullopt,
      const std::optional<TlsIdentity>& identity = std::nullopt);
  ~CoordinatorServer();

  const CoordinatorAddress& address() const { return address_; }

 private:
  class Service;

  CoordinatorServer();

  CoordinatorAddress address_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Listener> listener_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_COORDINATOR_COORDINATOR_SERVER_H_
