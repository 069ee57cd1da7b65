// Talking to the coordinator of a running job: where it is, what it wants to
// hear, and calls.

#ifndef TRIREME_TRAINER_COORDINATOR_COORDINATOR_CLIENT_H_
#define TRIREME_TRAINER_COORDINATOR_COORDINATOR_CLIENT_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/coordinator/coordinator.grpc.pb.h"

namespace trireme {

struct CoordinatorAddress {
  std::string endpoint;  // "127.0.0.1:40123"
  std::string token;
};

// The environment in which a launch tells its ranks.
inline constexpr char kEndpointVariable[] = "TRIREME_COORDINATOR";
inline constexpr char kTokenVariable[] = "TRIREME_COORDINATOR_TOKEN";
// Nothing where no launch did.
std::optional<CoordinatorAddress> AddressInEnvironment();

// RUN/coordinator.json, by which commands find a run's launch. Only its owner
// may read it.
absl::Status WriteAddress(const CoordinatorAddress& address,
                          const std::string& run);
// Errors: FailedPrecondition where nobody is there who launched it.
absl::StatusOr<CoordinatorAddress> ReadAddress(const std::string& run);
// If it is this one.
void RemoveAddress(const CoordinatorAddress& address, const std::string& run);

// 256 random bits in hexadecimal.
absl::StatusOr<std::string> NewToken();

// Calls with a deadline and the token.
class CoordinatorClient {
 public:
  explicit CoordinatorClient(const CoordinatorAddress& address);

  // Errors: Unavailable where nobody answers within two seconds; what the
  // coordinator refuses.
  absl::StatusOr<OrdersSoFar> Report(const RankReport& report);
  absl::StatusOr<JobStatus> GetStatus();
  absl::Status GiveOrder(Order::Kind kind);

 private:
  template <typename Request, typename Reply>
  absl::Status Call(grpc::Status (Coordinator::Stub::*method)(
                        grpc::ClientContext*, const Request&, Reply*),
                    const Request& request, Reply& reply);

  const CoordinatorAddress address_;
  const std::unique_ptr<Coordinator::Stub> stub_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_COORDINATOR_COORDINATOR_CLIENT_H_
