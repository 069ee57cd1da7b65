#include "trainer/coordinator/coordinator_server.h"

#include <algorithm>
#include <chrono>
#include <string_view>
#include <utility>

#include "fmt/format.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "runtime/core/status.h"
#include "runtime/core/timeouts.h"
#include "trainer/coordinator/coordinator.grpc.pb.h"

namespace trireme {
namespace {

constexpr int kMaxMessageBytes = 1 << 20;
constexpr Timeouts kTimeouts;
// Of a connection at once: ranks and people call one after the other.
constexpr int kMostCalls = 16;

// Takes as long for any guess.
bool Equal(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= a[i] ^ b[i];
  return difference == 0;
}

std::shared_ptr<grpc::ServerCredentials> CredentialsOf(
    const std::optional<TlsIdentity>& identity) {
  if (!identity.has_value()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions options;
  options.pem_key_cert_pairs.push_back(
      {identity->private_key, identity->certificate});
  return grpc::SslServerCredentials(options);
}

grpc::Status ToGrpc(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()), MessageOf(status)};
}

}  // namespace

class CoordinatorServer::Service : public Coordinator::Service {
 public:
  Service(JobWatch& watch, std::string token)
      : watch_(watch), authorization_("Bearer " + std::move(token)) {}

  grpc::Status Report(grpc::ServerContext* context, const RankReport* report,
                      OrdersSoFar* orders) override {
    if (!Knows(*context)) return Refusal();
    const absl::StatusOr<OrdersSoFar> so_far =
        watch_.Report(*report, JobWatch::Clock::now());
    if (!so_far.ok()) return ToGrpc(so_far.status());
    *orders = *so_far;
    return grpc::Status::OK;
  }

  grpc::Status GetStatus(grpc::ServerContext* context, const StatusRequest*,
                         JobStatus* status) override {
    if (!Knows(*context)) return Refusal();
    *status = watch_.Status(JobWatch::Clock::now());
    return grpc::Status::OK;
  }

  grpc::Status GiveOrder(grpc::ServerContext* context, const Order* order,
                         OrderReply*) override {
    if (!Knows(*context)) return Refusal();
    return ToGrpc(watch_.GiveOrder(order->kind()));
  }

 private:
  bool Knows(const grpc::ServerContext& context) const {
    const auto& metadata = context.client_metadata();
    const auto found = metadata.find("authorization");
    return found != metadata.end() &&
           Equal({found->second.data(), found->second.size()}, authorization_);
  }
  static grpc::Status Refusal() {
    return {grpc::StatusCode::UNAUTHENTICATED, "expected the job's token"};
  }

  JobWatch& watch_;
  const std::string authorization_;
};

CoordinatorServer::CoordinatorServer() = default;

CoordinatorServer::~CoordinatorServer() {
  listener_.reset();
  if (server_ != nullptr) {
    server_->Shutdown(std::chrono::system_clock::now() + kTimeouts.reach);
  }
}

absl::StatusOr<std::unique_ptr<CoordinatorServer>> CoordinatorServer::Start(
    JobWatch& watch, const std::string& listen,
    std::optional<std::string> token,
    const std::optional<TlsIdentity>& identity) {
  for (const char* anywhere : {"0.0.0.0:", "[::]:", "*:"}) {
    if (!listen.starts_with(anywhere)) continue;
    return InvalidArgument(
        "--listen: found '{}', by which no one finds this machine; expected "
        "the address that others reach it by",
        listen);
  }
  std::unique_ptr<CoordinatorServer> server(new CoordinatorServer);
  if (!token.has_value()) {
    ASSIGN_OR_RETURN(token, NewToken());
  }
  server->address_.token = *std::move(token);
  if (identity.has_value())
    server->address_.certificate = identity->certificate;
  server->service_ = std::make_unique<Service>(watch, server->address_.token);
  ASSIGN_OR_RETURN(server->listener_, Listener::Open(listen));
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                             static_cast<int>(kTimeouts.handshake.count()));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS,
                             static_cast<int>(kTimeouts.idle.count()));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMostCalls);
  server->acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      CredentialsOf(identity));
  builder.RegisterService(server->service_.get());
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr) {
    return Unavailable("the coordinator at '{}' cannot be started", listen);
  }
  server->listener_->Start([acceptor = server->acceptor_.get()](int socket) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters
        connection;
    connection.fd = socket;
    acceptor->HandleNewConnection(&connection);
  });
  server->address_.endpoint = fmt::format(
      "{}:{}", listen.substr(0, listen.rfind(':')), server->listener_->port());
  return server;
}

}  // namespace trireme
