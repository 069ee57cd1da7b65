// How a launch is found: by its ranks in their environment, by commands and by
// a later launch in the run's folder.

#ifndef TRIREME_TRAINER_COORDINATOR_LAUNCH_RECORD_H_
#define TRIREME_TRAINER_COORDINATOR_LAUNCH_RECORD_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trireme {

struct CoordinatorAddress {
  std::string endpoint;  // "127.0.0.1:40123"
  std::string token;
  // Of the coordinator (tls.h), PEM; empty: calls are not encrypted.
  std::string certificate = {};
};

// The environment in which a launch tells its ranks.
inline constexpr char kEndpointVariable[] = "TRIREME_COORDINATOR";
inline constexpr char kTokenVariable[] = "TRIREME_COORDINATOR_TOKEN";
inline constexpr char kStartVariable[] = "TRIREME_START";
// In Base64: one line. Absent: calls are not encrypted.
inline constexpr char kCertificateVariable[] =
    "TRIREME_COORDINATOR_CERTIFICATE";
// In milliseconds.
inline constexpr char kLostVariable[] = "TRIREME_LOST_AFTER_MS";
// The same for the ranks of this process. `lost`: Timeouts'.
void SetInEnvironment(const CoordinatorAddress& address,
                      std::chrono::milliseconds lost);

struct CoordinatorOfRank {
  CoordinatorAddress address;
  // Which of the launch's starts of the ranks this is, from 1.
  int64_t start = 0;
  // How long its launch puts up with silence (Timeouts).
  std::chrono::milliseconds lost{0};
};
// Nothing where no launch did.
std::optional<CoordinatorOfRank> CoordinatorInEnvironment();

// RUN/coordinator.json, while a launched run trains.
struct LaunchRecord {
  CoordinatorAddress address;
  // Of the address's certificate, for a launch that takes this one's place.
  std::string private_key = {};
  int64_t start = 0;
  // The launch's.
  std::string host;
  // There, and StartTicksOf it (runtime/core/processes.h).
  int64_t mpirun = 0;
  int64_t mpirun_ticks = 0;
};

// Only its owner may read it, whole at any time.
absl::Status WriteLaunchRecord(const LaunchRecord& record,
                               const std::string& run);
// Errors: FailedPrecondition where nobody is there who launched it.
absl::StatusOr<LaunchRecord> ReadLaunchRecord(const std::string& run);
// If it is that launch's.
void RemoveLaunchRecord(const CoordinatorAddress& address,
                        const std::string& run);

// 256 random bits in hexadecimal.
absl::StatusOr<std::string> NewToken();

}  // namespace trireme

#endif  // TRIREME_TRAINER_COORDINATOR_LAUNCH_RECORD_H_
