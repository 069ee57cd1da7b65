// Calls to the coordinator of a running job.

#ifndef TRIREME_TRAINER_COORDINATOR_COORDINATOR_CLIENT_H_
#define TRIREME_TRAINER_COORDINATOR_COORDINATOR_CLIENT_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/channel.h"
#include "trainer/coordinator/coordinator.grpc.pb.h"
#include "trainer/coordinator/launch_record.h"

namespace trireme {

// Calls with a deadline and the token, encrypted where the address has a
// certificate; who is there without it hears nothing.
class CoordinatorClient {
 public:
  explicit CoordinatorClient(const CoordinatorAddress& address);

  // Errors: Unavailable where nobody is there, for a report after a second;
  // DeadlineExceeded where who is does not answer within two seconds; what the
  // coordinator refuses, as FailedPrecondition a report of ranks that were
  // started again since.
  absl::StatusOr<OrdersSoFar> Report(const RankReport& report);
  absl::StatusOr<JobStatus> GetStatus();
  absl::Status GiveOrder(Order::Kind kind);

 private:
  template <typename Request, typename Reply>
  absl::Status Call(grpc::Status (Coordinator::Stub::*method)(
                        grpc::ClientContext*, const Request&, Reply*),
                    const Request& request, Reply& reply);

  const CoordinatorAddress address_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<Coordinator::Stub> stub_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_COORDINATOR_COORDINATOR_CLIENT_H_
