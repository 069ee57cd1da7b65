#include "trainer/coordinator/metrics_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "fmt/format.h"
#include "runtime/core/status.h"
#include "runtime/core/timeouts.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMostRequestBytes = 8192;
constexpr size_t kMostClients = 512;
constexpr int kBacklog = 128;
constexpr Timeouts::Duration kPatience = Timeouts().call;
constexpr std::chrono::milliseconds kBetweenLooks(100);

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

}  // namespace

// One connection: what has come of a request's head, then what is left of the
// answer.
class MetricsServer::Client {
 public:
  explicit Client(int socket) : socket_(socket) {}
  Client(Client&& other) noexcept { *this = std::move(other); }
  Client& operator=(Client&& other) noexcept {
    std::swap(socket_, other.socket_);
    std::swap(head_, other.head_);
    std::swap(reply_, other.reply_);
    std::swap(until_, other.until_);
    return *this;
  }
  ~Client() {
    if (socket_ >= 0) close(socket_);
  }

  pollfd look() const {
    const bool asked = !reply_.empty();
    return {socket_, static_cast<int16_t>(asked ? POLLOUT : POLLIN), 0};
  }

  // Reads or writes what can be; whether there is more to do. Who has not asked
  // in time is told so.
  bool GoOn(bool ready, Clock::time_point now,
            const std::function<std::string()>& text) {
    const bool late = now >= until_;
    if (!reply_.empty() && late) return false;
    if (reply_.empty() && !late && (!ready || ReadHead())) return true;
    if (reply_.empty()) Answer(text);
    return Send();
  }

 private:
  // Whether there may come more of it.
  bool ReadHead() {
    std::array<char, 1024> bytes{};
    while (head_.size() < kMostRequestBytes &&
           head_.find("\r\n\r\n") == std::string::npos) {
      const ssize_t count = recv(socket_, bytes.data(), bytes.size(), 0);
      if (count <= 0) return count < 0 && errno == EAGAIN;
      head_.append(bytes.data(), count);
    }
    return false;
  }

  void Answer(const std::function<std::string()>& text) {
    const bool known = head_.starts_with("GET /metrics ") ||
                       head_.starts_with("GET /metrics?");
    const std::string body = known ? text() : "expected GET /metrics\n";
    reply_ = fmt::format(
        "HTTP/1.1 {}\r\nContent-Type: text/plain; version=0.0.4\r\n"
        "Content-Length: {}\r\nConnection: close\r\n\r\n{}",
        known ? "200 OK" : "404 Not Found", body.size(), body);
    until_ = Clock::now() + kPatience;
  }

  // Whether something is left of the answer, which has begun.
  bool Send() {
    // Who goes away early must not end this process.
    const ssize_t count =
        send(socket_, reply_.data(), reply_.size(), MSG_NOSIGNAL);
    if (count < 0) return errno == EAGAIN;
    reply_.erase(0, count);
    return !reply_.empty();
  }

  int socket_ = -1;
  std::string head_;
  std::string reply_;
  Clock::time_point until_ = Clock::now() + kPatience;
};

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& listen, std::function<std::string()> text) {
  ASSIGN_OR_RETURN(sockaddr_in address, ParseAddress(listen));
  const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  socklen_t size = sizeof(address);
  auto* const raw = reinterpret_cast<sockaddr*>(&address);
  if (server < 0 || bind(server, raw, size) != 0 ||
      ::listen(server, kBacklog) != 0 || getsockname(server, raw, &size) != 0) {
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
  std::vector<Client> clients;
  // No more files may be open: who waits would be found again and again.
  bool full = false;
  for (;;) {
    const bool more = !full && clients.size() < kMostClients;
    std::vector<pollfd> look = {
        {ending_, POLLIN, 0},
        {socket_, static_cast<int16_t>(more ? POLLIN : 0), 0}};
    for (const Client& client : clients) look.push_back(client.look());
    const int wait = clients.empty() && !full ? -1 : kBetweenLooks.count();
    full = false;
    if (poll(look.data(), look.size(), wait) < 0 && errno != EINTR) return;
    if (look[0].revents != 0) return;
    const Clock::time_point now = Clock::now();
    std::vector<Client> left;
    for (size_t i = 0; i < clients.size(); ++i) {
      if (clients[i].GoOn(look[i + 2].revents != 0, now, text_)) {
        left.push_back(std::move(clients[i]));
      }
    }
    clients = std::move(left);
    if (look[1].revents == 0) continue;
    const int client =
        accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client >= 0) {
      clients.emplace_back(client);
    } else {
      full = errno != EAGAIN && errno != EINTR && errno != ECONNABORTED;
    }
  }
}

}  // namespace trireme
