#include "trainer/coordinator/launch_record.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <system_error>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "trainer/run/is_run.h"

namespace trireme {
namespace {

constexpr int64_t kMaxRecordBytes = 1 << 16;

std::string PathOf(const std::string& run) { return run + "/coordinator.json"; }

}  // namespace

std::optional<CoordinatorOfRank> CoordinatorInEnvironment() {
  const char* endpoint = std::getenv(kEndpointVariable);
  const char* token = std::getenv(kTokenVariable);
  const char* start = std::getenv(kStartVariable);
  const char* lost = std::getenv(kLostVariable);
  CoordinatorOfRank coordinator;
  int64_t lost_ms = 0;
  if (endpoint == nullptr || token == nullptr || start == nullptr ||
      lost == nullptr || !absl::SimpleAtoi(start, &coordinator.start) ||
      !absl::SimpleAtoi(lost, &lost_ms)) {
    return std::nullopt;
  }
  coordinator.lost = std::chrono::milliseconds(lost_ms);
  coordinator.address = {endpoint, token};
  const char* certificate = std::getenv(kCertificateVariable);
  // Without a certificate that can be read nobody is called.
  if (certificate != nullptr &&
      !absl::Base64Unescape(certificate, &coordinator.address.certificate)) {
    return std::nullopt;
  }
  return coordinator;
}

void SetInEnvironment(const CoordinatorAddress& address,
                      std::chrono::milliseconds lost) {
  setenv(kLostVariable, fmt::to_string(lost.count()).c_str(), /*overwrite=*/1);
  setenv(kEndpointVariable, address.endpoint.c_str(), /*overwrite=*/1);
  setenv(kTokenVariable, address.token.c_str(), /*overwrite=*/1);
  if (address.certificate.empty()) {
    unsetenv(kCertificateVariable);
  } else {
    setenv(kCertificateVariable,
           absl::Base64Escape(address.certificate).c_str(), /*overwrite=*/1);
  }
}

absl::Status WriteLaunchRecord(const LaunchRecord& record,
                               const std::string& run) {
  RETURN_IF_ERROR(MakeDirectories(run));
  const std::string path = PathOf(run);
  const std::string beside = path + ".new";
  const std::string text =
      nlohmann::json({{"endpoint", record.address.endpoint},
                      {"token", record.address.token},
                      {"certificate", record.address.certificate},
                      {"private_key", record.private_key},
                      {"start", record.start},
                      {"host", record.host},
                      {"mpirun", record.mpirun},
                      {"mpirun_ticks", record.mpirun_ticks}})
          .dump() +
      "\n";
  // The token must never be there for others to read.
  std::remove(beside.c_str());
  const int descriptor =
      open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0) {
    return Unavailable("{}: cannot open: {}", beside,
                       std::generic_category().message(errno));
  }
  const bool written = write(descriptor, text.data(), text.size()) ==
                           static_cast<ssize_t>(text.size()) &&
                       rename(beside.c_str(), path.c_str()) == 0;
  const int error = errno;
  close(descriptor);
  if (written) return absl::OkStatus();
  return Unavailable("{}: cannot write: {}", path,
                     std::generic_category().message(error));
}

absl::StatusOr<LaunchRecord> ReadLaunchRecord(const std::string& run) {
  const std::string path = PathOf(run);
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxRecordBytes);
  if (!text.ok()) {
    RETURN_IF_ERROR(CheckIsRun(run));
    if (!absl::IsNotFound(text.status())) return text.status();
    return FailedPrecondition(
        "{}: no launch of it is running; `trireme inspect` says what it has "
        "done",
        run);
  }
  const auto json =
      nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  const auto string = [&](const char* name) -> std::string {
    return json.is_object() && json.contains(name) && json[name].is_string()
               ? json[name].get<std::string>()
               : "";
  };
  const auto number = [&](const char* name) -> int64_t {
    return json.is_object() && json.contains(name) &&
                   json[name].is_number_integer()
               ? json[name].get<int64_t>()
               : 0;
  };
  LaunchRecord record{
      .address = {string("endpoint"), string("token"), string("certificate")},
      .private_key = string("private_key"),
      .start = number("start"),
      .host = string("host"),
      .mpirun = number("mpirun"),
      .mpirun_ticks = number("mpirun_ticks")};
  if (record.address.endpoint.empty() || record.address.token.empty()) {
    return DataLoss("{}: found '{}', expected an endpoint and a token", path,
                    *text);
  }
  return record;
}

void RemoveLaunchRecord(const CoordinatorAddress& address,
                        const std::string& run) {
  const absl::StatusOr<LaunchRecord> there = ReadLaunchRecord(run);
  if (there.ok() && there->address.token == address.token) {
    std::remove(PathOf(run).c_str());
  }
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

}  // namespace trireme
