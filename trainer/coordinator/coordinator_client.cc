#include "trainer/coordinator/coordinator_client.h"

#include <chrono>
#include <string>

#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"
#include "runtime/core/status.h"
#include "runtime/core/timeouts.h"
#include "trainer/coordinator/tls.h"

namespace trireme {
namespace {

constexpr Timeouts kTimeouts;

std::shared_ptr<grpc::Channel> ChannelTo(const CoordinatorAddress& address) {
  grpc::ChannelArguments arguments;
  constexpr auto kReconnectMs = static_cast<int>(kTimeouts.reconnect.count());
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMs);
  if (address.certificate.empty()) {
    return grpc::CreateCustomChannel(
        address.endpoint, grpc::InsecureChannelCredentials(), arguments);
  }
  arguments.SetSslTargetNameOverride(kTlsName);
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = address.certificate;
  return grpc::CreateCustomChannel(address.endpoint,
                                   grpc::SslCredentials(options), arguments);
}

}  // namespace

CoordinatorClient::CoordinatorClient(const CoordinatorAddress& address)
    : address_(address),
      channel_(ChannelTo(address)),
      stub_(Coordinator::NewStub(channel_)) {}

template <typename Request, typename Reply>
absl::Status CoordinatorClient::Call(
    grpc::Status (Coordinator::Stub::*method)(grpc::ClientContext*,
                                              const Request&, Reply*),
    const Request& request, Reply& reply) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kTimeouts.call);
  context.AddMetadata("authorization", "Bearer " + address_.token);
  const grpc::Status status = (*stub_.*method)(&context, request, &reply);
  if (status.ok()) return absl::OkStatus();
  // The codes have the same numbers.
  return StatusOf(static_cast<absl::StatusCode>(status.error_code()),
                  "the coordinator at {}: {}", address_.endpoint,
                  status.error_message());
}

absl::StatusOr<OrdersSoFar> CoordinatorClient::Report(
    const RankReport& report) {
  // Calls on a channel that has lost its coordinator fail at once, and nobody
  // would see to it that TLS shakes hands with who took that one's place.
  channel_->WaitForConnected(std::chrono::system_clock::now() +
                             kTimeouts.reach);
  OrdersSoFar orders;
  RETURN_IF_ERROR(Call(&Coordinator::Stub::Report, report, orders));
  return orders;
}

absl::StatusOr<JobStatus> CoordinatorClient::GetStatus() {
  JobStatus status;
  RETURN_IF_ERROR(Call(&Coordinator::Stub::GetStatus, StatusRequest(), status));
  return status;
}

absl::Status CoordinatorClient::GiveOrder(Order::Kind kind) {
  Order order;
  order.set_kind(kind);
  OrderReply reply;
  return Call(&Coordinator::Stub::GiveOrder, order, reply);
}

}  // namespace trireme
