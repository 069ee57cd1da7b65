// Encrypted calls to a coordinator: it proves who it is by a certificate of its
// own, which whoever may call it has from where the job's token is.

#ifndef TRIREME_TRAINER_COORDINATOR_TLS_H_
#define TRIREME_TRAINER_COORDINATOR_TLS_H_

#include <string>

#include "absl/status/statusor.h"

namespace trireme {

// The name that the certificates are of, whatever the address.
inline constexpr char kTlsName[] = "trireme-coordinator";

// Both PEM.
struct TlsIdentity {
  std::string certificate;
  std::string private_key;
};

// A new key (NIST P-256), with a certificate that it signs itself for
// kTlsName, from yesterday on for ten years.
absl::StatusOr<TlsIdentity> NewTlsIdentity();

}  // namespace trireme

#endif  // TRIREME_TRAINER_COORDINATOR_TLS_H_
