#include "trainer/coordinator/coordinator_client.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "fmt/format.h"
#include "grpcpp/create_channel.h"
#include "nlohmann/json.hpp"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int64_t kMaxAddressBytes = 1 << 16;
constexpr std::chrono::seconds kPatience(2);

std::string PathOf(const std::string& run) { return run + "/coordinator.json"; }

}  // namespace

absl::Status WriteAddress(const CoordinatorAddress& address,
                          const std::string& run) {
  RETURN_IF_ERROR(MakeDirectories(run));
  const std::string path = PathOf(run);
  const std::string text =
      nlohmann::json({{"endpoint", address.endpoint}, {"token", address.token}})
          .dump() +
      "\n";
  // The token must never be there for others to read.
  const int descriptor =
      open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) {
    return Unavailable("{}: cannot open: {}", path,
                       std::generic_category().message(errno));
  }
  const bool written = fchmod(descriptor, 0600) == 0 &&
                       ftruncate(descriptor, 0) == 0 &&
                       write(descriptor, text.data(), text.size()) ==
                           static_cast<ssize_t>(text.size());
  const int error = errno;
  close(descriptor);
  if (written) return absl::OkStatus();
  return Unavailable("{}: cannot write: {}", path,
                     std::generic_category().message(error));
}

absl::StatusOr<CoordinatorAddress> ReadAddress(const std::string& run) {
  const std::string path = PathOf(run);
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxAddressBytes);
  if (absl::IsNotFound(text.status())) {
    std::error_code error;
    return FailedPrecondition("{}: {}", run,
                              std::filesystem::exists(run, error)
                                  ? "no launch of it is running"
                                  : "no such folder; expected that of a run");
  }
  RETURN_IF_ERROR(text.status());
  const auto json =
      nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  const auto field = [&](const char* name) -> std::string {
    return json.is_object() && json.contains(name) && json[name].is_string()
               ? json[name].get<std::string>()
               : "";
  };
  CoordinatorAddress address{field("endpoint"), field("token")};
  if (address.endpoint.empty() || address.token.empty()) {
    return DataLoss("{}: found '{}', expected an endpoint and a token", path,
                    *text);
  }
  return address;
}

void RemoveAddress(const CoordinatorAddress& address, const std::string& run) {
  const absl::StatusOr<CoordinatorAddress> there = ReadAddress(run);
  if (there.ok() && there->token == address.token) {
    std::remove(PathOf(run).c_str());
  }
}

std::optional<CoordinatorAddress> AddressInEnvironment() {
  const char* endpoint = std::getenv(kEndpointVariable);
  const char* token = std::getenv(kTokenVariable);
  if (endpoint == nullptr || token == nullptr) return std::nullopt;
  return CoordinatorAddress{endpoint, token};
}

absl::StatusOr<std::string> NewToken() {
  std::array<unsigned char, 32> bits;
  if (getrandom(bits.data(), bits.size(), 0) !=
      static_cast<ssize_t>(bits.size())) {
    return Unavailable("cannot make a token: {}",
                       std::generic_category().message(errno));
  }
  std::string text;
  for (const unsigned char byte : bits) text += fmt::format("{:02x}", byte);
  return text;
}

CoordinatorClient::CoordinatorClient(const CoordinatorAddress& address)
    : address_(address),
      stub_(Coordinator::NewStub(grpc::CreateChannel(
          address.endpoint, grpc::InsecureChannelCredentials()))) {}

template <typename Request, typename Reply>
absl::Status CoordinatorClient::Call(
    grpc::Status (Coordinator::Stub::*method)(grpc::ClientContext*,
                                              const Request&, Reply*),
    const Request& request, Reply& reply) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
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
