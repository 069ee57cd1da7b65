#include "trainer/coordinator/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/numbers.h"
#include "fmt/format.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int kBacklog = 1024;
// Until there may be a file to open again.
constexpr int kRestMs = 100;

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

// Of "HOST:PORT" or "[HOST]:PORT"; null: there is none.
AddressList Resolve(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == std::string::npos ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 ||
      port > 65535) {
    return {nullptr, freeaddrinfo};
  }
  std::string host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), fmt::to_string(port).c_str(), &wanted,
                  &found) != 0) {
    found = nullptr;
  }
  return {found, freeaddrinfo};
}

int PortOf(const sockaddr* address) {
  return ntohs(address->sa_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6*>(address)->sin6_port
                   : reinterpret_cast<const sockaddr_in*>(address)->sin_port);
}

void SetPort(sockaddr* address, int port) {
  (address->sa_family == AF_INET6
       ? reinterpret_cast<sockaddr_in6*>(address)->sin6_port
       : reinterpret_cast<sockaddr_in*>(address)->sin_port) =
      htons(static_cast<uint16_t>(port));
}

// A socket that listens, -1 where it cannot; the port is written to `port`.
int ListenAt(const addrinfo& info, int& port) {
  if (info.ai_family != AF_INET && info.ai_family != AF_INET6) return -1;
  const int server =
      socket(info.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int yes = 1;
  // A launch that takes another one's place listens where that one did. Two at
  // once cannot.
  setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  // Connections have it of the socket that they come to.
  setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  if (info.ai_family == AF_INET6) {
    // [::] is every address of this machine.
    const auto* const address =
        reinterpret_cast<const sockaddr_in6*>(info.ai_addr);
    const int only = IN6_IS_ADDR_UNSPECIFIED(&address->sin6_addr) ? 0 : 1;
    setsockopt(server, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  auto* const raw = reinterpret_cast<sockaddr*>(&bound);
  if (server >= 0 && bind(server, info.ai_addr, info.ai_addrlen) == 0 &&
      listen(server, kBacklog) == 0 && getsockname(server, raw, &size) == 0) {
    port = PortOf(raw);
    return server;
  }
  if (server >= 0) close(server);
  return -1;
}

}  // namespace

Listener::Listener() : ending_(eventfd(0, EFD_CLOEXEC)) {}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Open(
    const std::string& address) {
  std::unique_ptr<Listener> listener(new Listener);
  const AddressList addresses = Resolve(address);
  for (addrinfo* next = addresses.get(); next != nullptr;
       next = next->ai_next) {
    // All at one port.
    if (listener->port_ != 0) SetPort(next->ai_addr, listener->port_);
    const int server = ListenAt(*next, listener->port_);
    if (server >= 0) listener->sockets_.push_back(server);
  }
  if (!listener->sockets_.empty()) return listener;
  return InvalidArgument(
      "--listen: found '{}', expected an address of this machine and a free "
      "port, as 127.0.0.1:0",
      address);
}

Listener::~Listener() {
  if (thread_.joinable()) {
    eventfd_write(ending_, 1);
    thread_.join();
  }
  for (const int server : sockets_) close(server);
  close(ending_);
}

void Listener::Start(std::function<void(int socket)> take) {
  thread_ = std::thread([this, take = std::move(take)] { Run(take); });
}

void Listener::Run(const std::function<void(int socket)>& take) {
  std::vector<pollfd> look = {{ending_, POLLIN, 0}};
  for (const int server : sockets_) look.push_back({server, POLLIN, 0});
  for (;;) {
    if (poll(look.data(), look.size(), -1) < 0 && errno != EINTR) return;
    if (look[0].revents != 0) return;
    for (size_t i = 1; i < look.size(); ++i) {
      if (look[i].revents == 0) continue;
      const int client =
          accept4(look[i].fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (client >= 0) {
        take(client);
      } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        poll(look.data(), 1, kRestMs);
      }
    }
  }
}

}  // namespace trireme
