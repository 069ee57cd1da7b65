#include "trainer/coordinator/metrics_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "fmt/format.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr size_t kMostRequestBytes = 8192;
constexpr timeval kPatience = {.tv_sec = 2, .tv_usec = 0};

absl::StatusOr<sockaddr_in> ParseAddress(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  int port = 0;
  if (colon == std::string::npos ||
      inet_pton(AF_INET, listen.substr(0, colon).c_str(), &address.sin_addr) !=
          1 ||
      !absl::SimpleAtoi(listen.substr(colon + 1), &port) || port < 0 ||
      port > 65535) {
    return InvalidArgument(
        "--metrics: found '{}', expected an address and a port, as "
        "127.0.0.1:9400",
        listen);
  }
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

// The head of a request, or what came of it in time.
std::string ReadHead(int client) {
  std::string head;
  std::array<char, 1024> bytes{};
  while (head.size() < kMostRequestBytes &&
         head.find("\r\n\r\n") == std::string::npos) {
    const ssize_t count = recv(client, bytes.data(), bytes.size(), 0);
    if (count <= 0) break;
    head.append(bytes.data(), count);
  }
  return head;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& listen, std::function<std::string()> text) {
  ASSIGN_OR_RETURN(sockaddr_in address, ParseAddress(listen));
  const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  socklen_t size = sizeof(address);
  auto* const raw = reinterpret_cast<sockaddr*>(&address);
  if (server < 0 || bind(server, raw, size) != 0 || ::listen(server, 16) != 0 ||
      getsockname(server, raw, &size) != 0) {
    const int error = errno;
    if (server >= 0) close(server);
    return InvalidArgument("--metrics: cannot listen at '{}': {}", listen,
                           std::generic_category().message(error));
  }
  return std::unique_ptr<MetricsServer>(new MetricsServer(
      server, eventfd(0, EFD_CLOEXEC),
      fmt::format("{}:{}", listen.substr(0, listen.rfind(':')),
                  ntohs(address.sin_port)),
      std::move(text)));
}

MetricsServer::MetricsServer(int socket, int ending, std::string endpoint,
                             std::function<std::string()> text)
    : socket_(socket),
      ending_(ending),
      endpoint_(std::move(endpoint)),
      text_(std::move(text)),
      thread_([this] { Run(); }) {}

MetricsServer::~MetricsServer() {
  eventfd_write(ending_, 1);
  thread_.join();
  close(socket_);
  close(ending_);
}

void MetricsServer::Run() {
  std::array<pollfd, 2> look = {{{socket_, POLLIN, 0}, {ending_, POLLIN, 0}}};
  for (;;) {
    if (poll(look.data(), look.size(), -1) < 0 && errno != EINTR) return;
    if (look[1].revents != 0) return;
    if (look[0].revents == 0) continue;
    const int client = accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) continue;
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof(kPatience));
    Answer(client);
    close(client);
  }
}

void MetricsServer::Answer(int client) const {
  const std::string head = ReadHead(client);
  const bool known =
      head.starts_with("GET /metrics ") || head.starts_with("GET /metrics?");
  const std::string body = known ? text_() : "expected GET /metrics\n";
  const std::string reply = fmt::format(
      "HTTP/1.1 {}\r\nContent-Type: text/plain; version=0.0.4\r\n"
      "Content-Length: {}\r\nConnection: close\r\n\r\n{}",
      known ? "200 OK" : "404 Not Found", body.size(), body);
  for (std::string_view rest = reply; !rest.empty();) {
    // Who goes away early must not end this process.
    const ssize_t count = send(client, rest.data(), rest.size(), MSG_NOSIGNAL);
    if (count <= 0) return;
    rest.remove_prefix(static_cast<size_t>(count));
  }
}

}  // namespace trireme
